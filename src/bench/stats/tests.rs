use super::{Dice, Ratio, Summary, median, percentile};

#[track_caller]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn medians_and_percentiles_of_known_samples() {
    assert_eq!(median(&[]), None);
    close(median(&[7.0]).unwrap(), 7.0);
    close(median(&[3.0, 1.0, 2.0]).unwrap(), 2.0);
    close(median(&[4.0, 1.0, 3.0, 2.0]).unwrap(), 2.5);
    let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
    close(percentile(&hundred, 0.5).unwrap(), 50.0);
    close(percentile(&hundred, 0.99).unwrap(), 99.0);
    close(percentile(&hundred, 1.0).unwrap(), 100.0);
    close(percentile(&hundred, 0.0).unwrap(), 1.0);
    assert_eq!(percentile(&[], 0.5), None);
}

#[test]
fn a_summary_names_what_lies_far_off() {
    let summary = Summary::of(&[10.0, 11.0, 10.5, 9.5, 30.0]).unwrap();
    close(summary.median, 10.5);
    close(summary.least, 9.5);
    close(summary.most, 30.0);
    close(summary.mad, 0.5);
    assert_eq!((summary.n, summary.outliers), (5, 1));
    assert!(summary.is_outlier(30.0) && !summary.is_outlier(11.0));
    close(summary.spread(), 1.0 / 10.5);
    // Where nearly all are the same, a hair's breadth is not far.
    let summary = Summary::of(&[10.0, 10.0, 10.0, 10.01]).unwrap();
    assert_eq!(summary.outliers, 0);
    assert_eq!(Summary::of(&[]), None);
}

/// What is known of the median of five: the least of them comes up as the median of a draw in 5.8
/// of 100 (three or more of five picks of one in five), so that the interval is the whole span.
#[test]
fn the_interval_of_five_is_their_span() {
    let ours = [10.0, 12.0, 11.0, 14.0, 13.0];
    let ratio = Ratio::paired(&ours, &[2.0; 5]).unwrap();
    close(ratio.value, 6.0);
    close(ratio.low, 5.0);
    close(ratio.high, 7.0);
    assert!(ratio.tells() && !ratio.is_vague());
}

/// Of many, it narrows: for 101 values 1 to 101 over 1 the order statistics that hold the median
/// with 95 % are the 41st and the 61st.
#[test]
fn the_interval_of_many_is_that_of_order_statistics() {
    let ours: Vec<f64> = (1..=101).map(f64::from).collect();
    let ratio = Ratio::paired(&ours, &[1.0; 101]).unwrap();
    close(ratio.value, 51.0);
    assert!((38.0..=44.0).contains(&ratio.low), "{ratio:?}");
    assert!((58.0..=64.0).contains(&ratio.high), "{ratio:?}");
    let again = Ratio::paired(&ours, &[1.0; 101]).unwrap();
    assert_eq!(ratio, again, "the same measurements, the same report");
}

#[test]
fn a_slow_round_that_hits_both_is_no_doubt_about_their_ratio() {
    let theirs = [1.0, 5.0, 2.0, 1.5, 9.0];
    let ours = theirs.map(|value| value * 3.0);
    let paired = Ratio::paired(&ours, &theirs).unwrap();
    close(paired.low, 3.0);
    close(paired.high, 3.0);
    let unpaired = Ratio::unpaired(&ours, &theirs).unwrap();
    close(unpaired.value, 3.0);
    assert!(unpaired.low < 2.0 && unpaired.high > 4.0 && unpaired.is_vague(), "{unpaired:?}");
}

#[test]
fn a_ratio_of_ratios_leaves_out_what_both_had() {
    let (ours, theirs) = ([6.0, 7.0, 6.5], [2.0, 2.2, 2.1]);
    let twice = (ours.map(|value| value * 2.0), theirs.map(|value| value * 2.0));
    let same = Ratio::of_ratios((&twice.0, &twice.1), (&ours, &theirs)).unwrap();
    close(same.value, 1.0);
    assert!(!same.tells(), "{same:?}");
    let slower = Ratio::of_ratios((&twice.0, &theirs), (&ours, &theirs)).unwrap();
    close(slower.value, 2.0);
    assert!(slower.tells() && slower.low > 1.7 && slower.high < 2.3, "{slower:?}");
    assert_eq!(Ratio::of_ratios((&[], &[]), (&ours, &theirs)), None);
}

#[test]
fn no_difference_is_not_told_as_one() {
    let ours = [1.0, 1.1, 0.9, 1.05, 0.95];
    let theirs = [1.02, 0.93, 1.07, 0.99, 1.0];
    assert!(!Ratio::unpaired(&ours, &theirs).unwrap().tells());
    assert_eq!(Ratio::paired(&[], &[]), None);
    assert_eq!(Ratio::paired(&[1.0], &[0.0]), None);
    let one = Ratio::paired(&[3.0, 9.0], &[2.0]).unwrap();
    close(one.value, 1.5);
}

#[test]
fn dice_are_fair_and_always_the_same() {
    let mut dice = Dice::new();
    let first = dice.roll();
    assert_eq!(Dice::new().roll(), first);
    let mut seen = [0_u32; 6];
    for _ in 0..6000 {
        seen[dice.below(6)] += 1;
    }
    assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
    assert_eq!(dice.below(0), 0);
}
