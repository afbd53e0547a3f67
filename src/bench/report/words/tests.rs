use super::{duration, interval, ratio, value};
use crate::bench::stats::Ratio;
use crate::bench::workload::Unit;

#[test]
fn numbers_have_as_many_digits_as_mean_something() {
    for (seconds, text) in [
        (0.000_000_123_4, "123 ns"),
        (0.000_041_26, "41.3 us"),
        (0.001, "1.00 ms"),
        (0.099_96, "100 ms"),
        (3.456, "3.46 s"),
        (125.0, "2 min 05 s"),
    ] {
        assert_eq!(duration(seconds), text);
    }
    for (number, text) in [(0.0, "0.00 x"), (0.012_34, "0.0123 x"), (0.05, "0.05 x")] {
        assert_eq!(value(number, Unit::Times), text);
    }
    assert_eq!(value(0.000_02, Unit::Times), "2e-5 x");
    assert_eq!(value(1536.0, Unit::Bytes), "1.50 KiB");
    assert_eq!(value(64.0 * 1024.0 * 1024.0, Unit::Bytes), "64.0 MiB");
    assert_eq!(value(2.0 * 1024.0 * 1024.0 * 1024.0, Unit::Bytes), "2.00 GiB");
    assert_eq!(value(16_385.0, Unit::Times), "16,385 x");
    assert_eq!(value(1_234_567.0, Unit::Times), "1,234,567 x");
}

#[test]
fn a_ratio_that_may_be_one_says_so() {
    assert_eq!(ratio(&Ratio { value: 2.0, low: 1.9, high: 2.2 }), "2.00");
    assert_eq!(ratio(&Ratio { value: 1.1, low: 0.9, high: 1.2 }), "~1.10");
    assert_eq!(interval(&Ratio { value: 12.34, low: 9.0, high: 130.0 }), "12.3 (9.00..130)");
}
