#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| meltemi_fuzz::der_certificates(data));
