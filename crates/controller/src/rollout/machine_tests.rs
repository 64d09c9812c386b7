//! Stories of rollouts, and what holds in every one of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1000;

fn limits() -> Limits {
    let seconds = Duration::from_secs;
    Limits { steady: seconds(60), tolerate: seconds(30), limit: seconds(600) }
}

fn id(n: usize) -> Uuid {
    Uuid::from_u128(n as u128 + 1)
}

fn members(waves: &[usize]) -> Members {
    let member = |(n, wave): (usize, &usize)| {
        let (name, step) = (format!("edge-{n}"), Step::Waiting);
        (id(n), Member { name, wave: *wave, step, since: UnixMillis(0) })
    };
    waves.iter().enumerate().map(member).collect()
}

/// A rollout with a clock.
struct Story {
    state: State,
    members: Members,
    now: u64,
    effects: Vec<Effect>,
}

impl Story {
    fn new(waves: &[usize], allowed: usize, rollback: bool) -> Story {
        let now = 1_000_000;
        let at = UnixMillis(now);
        let (state, members) = State::begin(members(waves), allowed, rollback, limits(), at);
        Story { state, members, now, effects: Vec::new() }
    }

    /// Time goes by, and all devices are looked at.
    fn look(&mut self, seconds: u64, health: impl Fn(usize) -> Health) {
        self.now += seconds * SECOND;
        let seen = (0..self.members.len()).map(|n| (id(n), health(n))).collect();
        self.event(Event::Look(seen)).unwrap();
    }

    fn event(&mut self, event: Event) -> Result<(), Refused> {
        let at = UnixMillis(self.now);
        let (state, members, effects) = step(self.state.clone(), self.members.clone(), at, event)?;
        (self.state, self.members) = (state, members);
        self.effects.extend(effects);
        Ok(())
    }

    fn released(&self) -> Vec<Uuid> {
        let released = self.effects.iter().filter_map(|e| match e {
            Effect::Release(ids) => Some(ids.clone()),
            _ => None,
        });
        released.flatten().collect()
    }

    fn steps(&self) -> String {
        let all: Vec<&str> = self.members.values().map(|m| m.step.name()).collect();
        all.join(" ")
    }
}

#[test]
fn waves_follow_each_other_when_all_is_well_long_enough() {
    let mut story = Story::new(&[0, 1, 1], 0, false);
    story.look(1, |_| Health::Good);
    assert_eq!(story.released(), [id(0)]);
    story.look(59, |_| Health::Good);
    assert_eq!(story.steps(), "taking waiting waiting");
    story.look(1, |_| Health::NotYet("restarting".into()));
    story.look(59, |_| Health::Good);
    assert_eq!(story.steps(), "taking waiting waiting", "a break begins anew");
    story.look(1, |_| Health::Good);
    assert_eq!(story.steps(), "passed taking taking");
    assert_eq!(story.released(), [id(0), id(1), id(2)]);
    story.look(60, |_| Health::Good);
    assert_eq!(
        (story.state.phase.clone(), story.steps().as_str()),
        (Phase::Done, "passed passed passed")
    );
}

#[test]
fn it_stops_with_reasons_when_more_fail_than_may() {
    let mut story = Story::new(&[0, 0, 0, 1], 1, false);
    let health = |n: usize| match n {
        0 => Health::Good,
        n => Health::Bad(format!("app web: no image {n}")),
    };
    story.look(1, health);
    story.look(29, health);
    assert_eq!(story.state.phase, Phase::Running, "what is wrong may pass");
    story.look(1, health);
    let want =
        "2 of 4 devices failed, 1 may: edge-1: app web: no image 1; edge-2: app web: no image 2";
    assert_eq!(story.state.phase, Phase::Stopped { why: want.into() });
    story.look(600, |_| Health::Good);
    assert_eq!(story.steps(), "passed failed failed waiting");
    assert_eq!(story.released().len(), 3);
    // A person who goes on takes the failures as they are.
    story.event(Event::Resume { by: "ann".into() }).unwrap();
    story.look(1, |_| Health::Good);
    assert_eq!(story.steps(), "passed failed failed taking");
}

#[test]
fn it_takes_the_change_back_from_those_that_have_it() {
    let mut story = Story::new(&[0, 0, 1], 0, true);
    story.look(1, |_| Health::Good);
    let health = |n: usize| if n == 1 { Health::Bad("x".into()) } else { Health::Good };
    story.look(30, health);
    let back = story.effects.iter().find_map(|e| match e {
        Effect::RollBack(ids) => Some(ids.clone()),
        _ => None,
    });
    assert_eq!(back, Some(vec![id(0), id(1)]));
    assert_eq!(story.steps(), "rolled back failed waiting");
    assert!(matches!(story.state.phase, Phase::RolledBack { .. }));
    let refused = story.event(Event::Resume { by: "ann".into() }).unwrap_err();
    assert_eq!(refused.to_string(), "the rollout is rolled back: begin another one");
}

#[test]
fn what_others_changed_is_not_rolled_back() {
    let theirs = "App web was changed by bob meanwhile";
    let mut story = Story::new(&[0, 1], 0, true);
    story.state.theirs = Some(theirs.to_owned());
    let refused = story.event(Event::RollBack { by: "ann".into() }).unwrap_err();
    assert!(refused.to_string().contains(theirs), "{refused}");
    story.look(1, |_| Health::Good);
    story.look(30, |_| Health::Bad("x".into()));
    let want = format!("1 of 2 devices failed, 0 may: edge-0: x; not rolled back: {theirs}");
    assert_eq!(story.state.phase, Phase::Stopped { why: want });
    assert_eq!(story.released(), [id(0)], "who waits goes on waiting");
    assert!(!story.effects.iter().any(|e| matches!(e, Effect::RollBack(_))));
}

#[test]
fn who_takes_too_long_has_failed_and_why_is_told() {
    let mut story = Story::new(&[0], 0, false);
    story.look(1, |_| Health::Good);
    for _ in 0..10 {
        story.look(60, |_| Health::NotYet("app web: downloading 40 %".into()));
    }
    let Phase::Stopped { why } = &story.state.phase else { panic!("{:?}", story.state.phase) };
    assert!(why.contains("edge-0: app web: downloading 40 % (after 10 min)"), "{why}");
}

#[test]
fn a_clock_that_jumps_fails_nobody_and_passes_nobody() {
    let mut story = Story::new(&[0], 0, false);
    story.look(1, |_| Health::Good);
    story.look(86_400, |_| Health::NotYet("restarting".into()));
    assert_eq!(story.steps(), "taking", "a day in which nobody looked counts as a minute");
    story.now -= 80_000 * SECOND;
    story.look(0, |_| Health::Good);
    story.look(59, |_| Health::Good);
    assert_eq!(story.steps(), "taking");
    story.look(1, |_| Health::Good);
    assert_eq!(story.steps(), "passed");
}

#[test]
fn a_device_waits_for_its_window() {
    let mut story = Story::new(&[0, 0], 0, false);
    let closed = |n: usize| match n {
        0 => Health::Closed("waits for its window, which opens at 02:00".into()),
        _ => Health::Good,
    };
    story.look(1, closed);
    story.look(60, closed);
    assert_eq!(story.steps(), "due passed");
    for _ in 0..100 {
        story.look(60, closed);
    }
    assert_eq!(story.steps(), "due passed", "waiting for a window is no failure");
    story.look(60, |_| Health::Good);
    assert_eq!(story.steps(), "taking passed");
}

#[test]
fn people_pause_promote_abort_and_somebody_elses_change_pauses() {
    let mut story = Story::new(&[0, 1, 2], 0, false);
    story.event(Event::Pause { by: "ann".into() }).unwrap();
    story.look(1, |_| Health::Good);
    assert!(story.released().is_empty());
    story.event(Event::Promote { by: "ann".into(), all: false }).unwrap();
    story.look(1, |_| Health::Good);
    assert_eq!(story.steps(), "taking taking waiting");
    story.event(Event::Overtaken("App web was changed by bob".into())).unwrap();
    assert_eq!(story.state.phase.why(), "App web was changed by bob");
    story.event(Event::Abort { by: "ann".into() }).unwrap();
    assert_eq!(story.state.phase.why(), "aborted by ann");
    story.event(Event::Promote { by: "ann".into(), all: true }).unwrap();
    story.look(1, |_| Health::Good);
    assert_eq!(story.steps(), "taking taking taking");
    story.look(60, |n| if n == 1 { Health::Gone } else { Health::Good });
    assert_eq!((story.steps().as_str(), story.state.phase.name()), ("passed gone passed", "done"));
}

#[derive(Debug, Clone)]
enum Act {
    Look(i64, Vec<u8>),
    Say(u8),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (-90i64..90, prop::collection::vec(0u8..12, 12)).prop_map(|(s, h)| Act::Look(s, h)),
        1 => (0u8..6).prop_map(Act::Say),
        2 => Just(Act::Restart),
    ]
}

proptest! {
    /// Whatever devices, clocks and people do, also when the controller starts anew at any point.
    #[test]
    fn what_holds_in_every_rollout(
        waves in prop::collection::vec(0usize..4, 1..12),
        allowed in 0usize..4,
        rollback in any::<bool>(),
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut story = Story::new(&waves, allowed, rollback);
        let mut given: BTreeSet<Uuid> = BTreeSet::new();
        let mut pushed = false;
        for act in acts {
            let before = (story.state.clone(), story.members.clone());
            story.effects.clear();
            let mut by_hand = false;
            match act {
                Act::Restart => {
                    // What is stored is all there is.
                    let state = serde_json::to_string(&story.state).unwrap();
                    prop_assert_eq!(&serde_json::from_str::<State>(&state).unwrap(), &story.state);
                    for member in story.members.values() {
                        let text = serde_json::to_string(member).unwrap();
                        prop_assert_eq!(&serde_json::from_str::<Member>(&text).unwrap(), member);
                    }
                    continue;
                }
                Act::Look(seconds, health) => {
                    story.now = story.now.saturating_add_signed(seconds * 1000);
                    story.look(0, |n| match health.get(n % health.len()) {
                        Some(0) => Health::NotYet("x".into()),
                        Some(1 | 2) => Health::Bad("x".into()),
                        Some(3) => Health::Closed("x".into()),
                        Some(4) => Health::Gone,
                        _ => Health::Good,
                    });
                }
                Act::Say(which) => {
                    let by = String::from("ann");
                    by_hand = true;
                    let event = match which {
                        0 => Event::Pause { by },
                        1 => Event::Resume { by },
                        2 => Event::Abort { by },
                        3 => Event::Promote { by, all: false },
                        4 => Event::Overtaken("bob".into()),
                        _ => Event::RollBack { by },
                    };
                    pushed |= which == 3;
                    let _ = story.event(event);
                }
            }
            let released: Vec<Uuid> = story.released();
            if !released.is_empty() {
                // Only while it runs, never after a stop, each device once, none before its wave.
                prop_assert!(before.0.phase == Phase::Running && !by_hand);
                prop_assert!(failed(&story.members) <= story.state.allowed);
                for id in &released {
                    prop_assert!(given.insert(*id), "given twice");
                    let wave = story.members[id].wave;
                    prop_assert!(wave <= story.state.wave);
                    if !pushed {
                        let earlier = story.members.values().filter(|m| m.wave < wave);
                        for member in earlier {
                            prop_assert!(member.step.is_over(), "two waves at once");
                        }
                    }
                }
            }
            if story.state.phase == Phase::Running && !by_hand {
                prop_assert!(failed(&story.members) <= story.state.allowed, "did not stop");
            }
            let rolled = story.effects.iter().any(|e| matches!(e, Effect::RollBack(_)));
            if rolled {
                let Some(Effect::RollBack(touched)) = story.effects.iter().find(|e| matches!(e, Effect::RollBack(_)))
                else { unreachable!() };
                for id in touched {
                    prop_assert!(given.contains(id));
                }
            }
            if before.0.phase.is_over() {
                prop_assert_eq!(&before.0.phase, &story.state.phase);
                prop_assert!(released.is_empty() && !rolled);
            }
            // Who has it is who was given it, until it is taken back.
            for (id, member) in &story.members {
                if member.step.has_it() {
                    prop_assert!(given.contains(id));
                }
            }
        }
    }
}
