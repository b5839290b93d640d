use super::*;

#[test]
fn attributes_are_filled_up_to_four_bytes() {
    assert_eq!(attribute(15, &133u32.to_ne_bytes()).len(), 8);
    let odd = attribute(1, &[7]);
    assert_eq!(odd.len(), 8);
    assert_eq!(odd[..2], 5u16.to_ne_bytes());
    assert_eq!(odd[4..], [7, 0, 0, 0]);
}

#[test]
fn an_answer_is_an_error_number_or_unreadable() {
    let answer = |error: i32| message(ERROR, 0, &error.to_ne_bytes());
    assert_eq!(answered_error(&answer(0)).unwrap(), 0);
    assert_eq!(answered_error(&answer(-17)).unwrap(), 17);
    assert!(answered_error(&[1, 2, 3]).is_err());
    assert!(answered_error(&message(3, 0, &[0; 4])).is_err());
}
