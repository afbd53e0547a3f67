use super::{Axis, amount, curve, escape, ratios};
use crate::bench::report::rows;
use crate::bench::report::sample;
use crate::bench::workload::Unit;

#[test]
fn equal_factors_are_equally_far_apart() {
    let axis = Axis { low: -1.0, high: 1.0, from: 100.0, to: 300.0 };
    for (value, at) in [(0.1, 100.0), (1.0, 200.0), (10.0, 300.0), (1000.0, 300.0)] {
        assert!((axis.at(value) - at).abs() < 1e-9, "{value}");
    }
    assert_eq!(axis.ticks().len(), 7, "{:?}", axis.ticks());
    assert!(Axis::over([0.0, -1.0, f64::NAN].into_iter(), 0.0, 1.0).is_none());
    let single = Axis::over([5.0].into_iter(), 0.0, 100.0).unwrap();
    assert!((single.at(5.0) - 50.0).abs() < 1e-9);
    assert!(!single.ticks().is_empty());
}

#[test]
fn a_plot_has_a_dot_for_each_ratio_and_closes_what_it_opens() {
    let results = sample();
    let rows = rows(&results);
    let plot = ratios(&rows.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(plot.matches("<circle").count(), 6, "{plot}");
    assert_eq!(plot.matches("<g ").count(), plot.matches("</g>").count());
    assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>"));
    assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
    assert!(ratios(&[]).is_none());
}

#[test]
fn a_curve_needs_two_points() {
    let line = vec![(4096.0, 1e-5), (1_048_576.0, 1e-3)];
    let plot = curve("bytes", Unit::Seconds, &[(0, line.clone()), (1, line)]).unwrap();
    assert_eq!(plot.matches("<polyline").count(), 2);
    assert!(plot.contains(">4K<") && plot.contains(">1M<"), "{plot}");
    assert!(curve("bytes", Unit::Seconds, &[(0, vec![(1.0, 1.0)])]).is_none());
    assert_eq!((amount(5.0), amount(10_000.0)), ("5".to_owned(), "10000".to_owned()));
    assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
}
