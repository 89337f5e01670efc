use super::*;
use proptest::prelude::*;

fn arm(name: &str, role: Role, value: f64, cost: f64) -> Measured {
    Measured {
        name: name.into(),
        role,
        primary: Estimate { value, low: value - 0.05, high: value + 0.05 },
        errors: 0.0,
        cost: Some(cost),
        latency: cost,
    }
}

/// Arms whose differences all have intervals of this half width.
fn evidence(arms: Vec<Measured>, half: f64) -> Evidence {
    let mut standings = Vec::new();
    for (a, first) in arms.iter().enumerate() {
        for (b, second) in arms.iter().enumerate().filter(|(b, _)| *b != a) {
            let value = first.primary.value - second.primary.value;
            let p = if value.abs() > half { 0.001 } else { 0.5 };
            standings.push(Standing {
                a,
                b,
                difference: Estimate { value, low: value - half, high: value + half },
                p,
                worse_in: Vec::new(),
            });
        }
    }
    Evidence { metric: "facts".into(), rows: 200, clusters: 200, margin: 0.05, target: None, arms, standings }
}

fn four(prompted: f64, rag: f64, tuned: f64, tuned_rag: f64, half: f64) -> Verdict {
    let arms = vec![
        arm("prompted", Role::Prompted, prompted, 10.0),
        arm("rag", Role::Rag, rag, 12.0),
        arm("tuned", Role::Tuned, tuned, 9.0),
        arm("tuned-rag", Role::TunedRag, tuned_rag, 11.0),
    ];
    verdict(&evidence(arms, half))
}

#[test]
fn each_verdict_has_its_case() {
    for (verdict, decision, expected) in [
        (
            four(0.3, 0.6, 0.4, 0.8, 0.08),
            Decision::Combine,
            "`tuned-rag` is better than `rag` in facts, 80.0 % against 60.0 %: +20.0 points (95 % interval +12.0 to +28.0).",
        ),
        (
            four(0.5, 0.4, 0.8, 0.6, 0.08),
            Decision::UseTuned,
            "`tuned` is better than `prompted` in facts, 80.0 % against 50.0 %: +30.0 points (95 % interval +22.0 to +38.0).",
        ),
        (
            four(0.3, 0.8, 0.4, 0.7, 0.05),
            Decision::KeepRag,
            "No tuned arm is worth it against `rag` (80.0 % in facts): `tuned-rag` is worse, by -10.0 points (95 % interval -15.0 to -5.0); `tuned` is worse, by -40.0 points (95 % interval -45.0 to -35.0).",
        ),
        (
            four(0.8, 0.3, 0.7, 0.3, 0.05),
            Decision::DoNotFineTune,
            "No tuned arm is worth it against `prompted` (80.0 % in facts): `tuned` is worse, by -10.0 points (95 % interval -15.0 to -5.0); `tuned-rag` is worse, by -50.0 points (95 % interval -55.0 to -45.0).",
        ),
        (
            four(0.5, 0.6, 0.4, 0.64, 0.08),
            Decision::NeedMoreRows,
            "200 rows cannot tell whether `tuned-rag` is better than `rag` in facts, +4.0 points (95 % interval -4.0 to +12.0); about 1635 would.",
        ),
    ] {
        assert_eq!((verdict.decision, verdict.reason.as_str()), (decision, expected));
    }
}

#[test]
fn as_good_and_cheaper_wins_and_a_guard_or_failures_forbid_it() {
    let arms = || vec![arm("prompted", Role::Prompted, 0.7, 10.0), arm("tuned", Role::Tuned, 0.7, 2.0)];
    let cheaper = verdict(&evidence(arms(), 0.04));
    assert_eq!(cheaper.decision, Decision::UseTuned);
    assert_eq!(
        cheaper.reason,
        "`tuned` is as good as `prompted` in facts within 5 points, +0.0 points (95 % interval -4.0 to +4.0), and costs 80 % less."
    );
    assert!(cheaper.passing.iter().all(|passing| passing.passed), "{cheaper:?}");
    let mut guarded = evidence(arms(), 0.04);
    guarded.standings[1].worse_in = vec!["groundedness".into()];
    let guarded = verdict(&guarded);
    assert_eq!(guarded.decision, Decision::DoNotFineTune);
    assert_eq!(guarded.passing[1], Passing { arm: "tuned".into(), passed: false, reason: "it is clearly worse in groundedness".into() });
    let mut failing = evidence(arms(), 0.04);
    failing.arms[1].errors = 0.2;
    let failing = verdict(&failing);
    assert_eq!(failing.decision, Decision::NothingToCompare);
    assert_eq!(failing.notes, ["`tuned` is left out: 20.0 % of its answers failed."]);
}

#[test]
fn without_tuned_arms_it_is_between_retrieval_and_a_prompt() {
    let two =
        |prompt, rag, half| verdict(&evidence(vec![arm("prompted", Role::Prompted, prompt, 10.0), arm("rag", Role::Rag, rag, 12.0)], half));
    assert_eq!(two(0.2, 0.6, 0.1).decision, Decision::KeepRag);
    assert_eq!(two(0.6, 0.6, 0.04).decision, Decision::KeepPrompt);
    assert_eq!(two(0.5, 0.55, 0.1).decision, Decision::NeedMoreRows);
    let weak = two(0.01, 0.2, 0.05);
    assert_eq!(
        weak.notes,
        ["No arm is good: the best, `rag`, reaches 20.0 % in facts. Better than the others is not good enough to serve."]
    );
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Prompted), Just(Role::FewShot), Just(Role::Rag), Just(Role::Tuned), Just(Role::TunedRag)]
}

prop_compose! {
    fn any_evidence()(
        arms in proptest::collection::vec((role(), 0.0f64..1.0, proptest::option::of(0.1f64..20.0), 0.0f64..0.1, 1.0f64..5000.0), 0..6),
        half in 0.01f64..0.5,
        rows in 0usize..500,
        margin in 0.0f64..0.1,
        target in proptest::option::of(0.0f64..1.0),
        worse in proptest::bits::u8::ANY,
    ) -> Evidence {
        let arms: Vec<Measured> = arms.into_iter().enumerate().map(|(at, (role, value, cost, errors, latency))| {
            Measured { name: format!("arm{at}"), role, primary: Estimate { value, low: value - half, high: value + half }, errors, cost, latency }
        }).collect();
        let mut evidence = evidence(arms, half);
        evidence.standings.iter_mut().enumerate().filter(|(at, _)| worse >> (at % 8) & 1 == 1).for_each(|(_, standing)| standing.worse_in = vec!["guard".into()]);
        Evidence { rows, clusters: rows, margin, target, ..evidence }
    }
}

proptest! {
    #[test]
    fn a_tuned_arm_never_wins_where_it_is_clearly_worse(evidence in any_evidence()) {
        let verdict = verdict(&evidence);
        let place = |name: &Option<String>| name.as_ref().and_then(|name| evidence.arms.iter().position(|arm| arm.name == *name));
        if matches!(verdict.decision, Decision::UseTuned | Decision::Combine) {
            let (winner, baseline) = (place(&verdict.arm).unwrap(), place(&verdict.baseline).unwrap());
            let standing = evidence.standing(winner, baseline).unwrap();
            prop_assert!(evidence.arms[winner].role.is_tuned() && !evidence.arms[baseline].role.is_tuned());
            prop_assert!(standing.difference.high >= 0.0 && standing.worse_in.is_empty());
            prop_assert!(standing.difference.low > 0.0 || (standing.difference.low > -evidence.margin && evidence.saving(winner, baseline).is_some()));
            prop_assert_eq!(verdict.decision == Decision::Combine, evidence.arms[winner].role.retrieves());
        }
        prop_assert_eq!(verdict.decision == Decision::NeedMoreRows, verdict.rows_needed.is_some());
        prop_assert!(verdict.rows_needed.is_none_or(|needed| needed > evidence.rows || evidence.rows == 0));
        prop_assert_eq!(verdict.passing.len(), evidence.arms.len());
        prop_assert!(!verdict.reason.is_empty());
    }

    #[test]
    fn what_passes_is_not_clearly_worse_and_the_order_of_arms_does_not_matter(evidence in any_evidence()) {
        let first = verdict(&evidence);
        for passing in first.passing.iter().filter(|passing| passing.passed) {
            let at = evidence.arms.iter().position(|arm| arm.name == passing.arm).unwrap();
            let baseline = evidence.arms.iter().position(|arm| Some(&arm.name) == first.baseline.as_ref()).unwrap();
            prop_assert!(evidence.usable(at));
            prop_assert!(at == baseline || evidence.standing(at, baseline).unwrap().difference.high > -evidence.margin);
        }
        let last = evidence.arms.len().saturating_sub(1);
        let mut turned = evidence;
        turned.arms.reverse();
        turned.standings.iter_mut().for_each(|standing| (standing.a, standing.b) = (last - standing.a, last - standing.b));
        let second = verdict(&turned);
        prop_assert_eq!((first.decision, first.rows_needed), (second.decision, second.rows_needed));
    }

    #[test]
    fn a_better_tuned_arm_never_makes_the_verdict_worse_for_it(evidence in any_evidence(), more in 0.0f64..0.5) {
        let mut evidence = evidence;
        // Tuned arms that win now and then, or the law would hold of nothing.
        (0..evidence.arms.len()).filter(|at| evidence.arms[*at].role.is_tuned()).collect::<Vec<_>>().into_iter().for_each(|at| raise(&mut evidence, at, 0.5));
        let before = verdict(&evidence);
        if matches!(before.decision, Decision::UseTuned | Decision::Combine) {
            let winner = evidence.arms.iter().position(|arm| Some(&arm.name) == before.arm.as_ref()).unwrap();
            raise(&mut evidence, winner, more);
            let after = verdict(&evidence);
            prop_assert_eq!((after.decision, after.arm), (before.decision, before.arm));
        }
    }
}

/// Makes an arm better by so much, against every other.
fn raise(evidence: &mut Evidence, at: usize, more: f64) {
    evidence.arms[at].primary.value += more;
    for standing in &mut evidence.standings {
        let shift = if standing.a == at {
            more
        } else if standing.b == at {
            -more
        } else {
            continue;
        };
        standing.difference.value += shift;
        standing.difference.low += shift;
        standing.difference.high += shift;
    }
}
