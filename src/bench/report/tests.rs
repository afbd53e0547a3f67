use super::date;

#[test]
fn days_are_those_of_the_calendar() {
    for (seconds, day) in [
        (0, "1970-01-01"),
        (951_782_400, "2000-02-29"),
        (951_868_800, "2000-03-01"),
        (1_767_225_599, "2025-12-31"),
        (1_795_305_600, "2026-11-22"),
    ] {
        assert_eq!(date(seconds), day);
    }
}
