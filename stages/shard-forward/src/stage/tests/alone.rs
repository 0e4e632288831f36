//! Requests that are served while nothing else is.

use std::time::Duration;

use schemas::admission::Event;
use schemas::control::{Feedback, Say};
use schemas::wire;

use super::{Bench, route_of, sequences};

#[test]
fn beside_a_request_that_is_served_alone_nothing_is_computed_until_its_client_has_heard() {
    let mut bench = Bench::new(|_| {});
    let (_, step) = bench.submit(&[4]);
    let step = step.steps[0].clone();
    let other = sequences(&step);
    let (alone, next) = (bench.job_alone(4), bench.job(4));
    let admission = bench.call(vec![alone, next], vec![]);
    assert_eq!(admission.notices.len(), 1, "the one behind it waits");
    assert!(bench.call(vec![], vec![]).steps.is_empty(), "a step of the others is on its way");
    let first = bench.draw(&step, None).steps.remove(0);
    assert_ne!(sequences(&first), other);
    assert_eq!(first.slices.len(), 1);
    let second = bench.draw(&first, None).steps.remove(0);
    assert_eq!(sequences(&second), sequences(&first), "its client has not heard of the token");
    let heard = Feedback { entries: vec![(route_of(&admission), Say::Delivered(1))] };
    let came = bench.call(vec![], vec![wire::encode(&heard)]);
    assert_eq!(came.notices.len(), 1, "the one behind it is admitted");
    let third = bench.draw(&second, None).steps.remove(0);
    assert_eq!(third.slices.len(), 3);
}

#[test]
fn one_served_alone_that_ends_or_stays_silent_lets_the_others_go_on() {
    for silent in [false, true] {
        let mut bench = Bench::new(|_| {});
        let (alone, next) = (bench.job_alone(4), bench.job(4));
        let admission = bench.call(vec![alone, next], vec![]);
        let came = match silent {
            true => {
                bench.now += Duration::from_secs(31);
                bench.call(vec![], vec![])
            }
            false => {
                let cancel = Feedback { entries: vec![(route_of(&admission), Say::Cancel)] };
                bench.call(vec![], vec![wire::encode(&cancel)])
            }
        };
        assert!(matches!(came.notices[0].event, Event::Admitted { .. }), "silent: {silent}");
    }
}
