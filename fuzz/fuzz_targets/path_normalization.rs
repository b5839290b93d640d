#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| meltemi_fuzz::path_normalization(data));
