use super::*;

const ME: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

fn summary(timestamp: u64) -> Summary {
    Summary {
        id: ME.parse().unwrap(),
        timestamp: Some(UnixMillis(timestamp)),
        certs_hash: "c1".into(),
        interval: Duration::from_secs(60),
        wants_certs: false,
    }
}

fn why() -> Problem {
    Problem::new("no", Diagnosis::of(Who::Network, "look"), UnixMillis(0))
}

fn config(hash: &str, timestamp: u64) -> Event {
    Event::Config(Answer::Config { hash: hash.into(), config: Some(summary(timestamp)) })
}

fn one(state: State, event: Event) -> (State, Vec<Effect>) {
    let properties = Properties::default();
    let at = Moment {
        me: ME.parse().unwrap(),
        properties: &properties,
        console: false,
        now: UnixMillis(9),
        jitter: Jitter(1.0),
    };
    step(state, event, at)
}

/// Plays events and tells what was asked for. What is to be applied is, and well.
fn play(mut state: State, events: Vec<Event>) -> (State, String) {
    let mut told = Vec::new();
    for event in events {
        let (mut next, mut effects) = one(state, event);
        if effects.contains(&Effect::Apply) {
            let (after, more) = one(next, Event::Applied(Ok(())));
            next = after;
            effects.extend(more);
        }
        told.extend(effects.iter().map(|e| match e {
            Effect::Alarm(kind, wait) => format!("{kind:?} in {} s", wait.as_secs()),
            Effect::AskConfig { hash, token } => {
                format!("ask {hash:?}{}", if token.is_some() { " with token" } else { "" })
            }
            Effect::SendQuote { .. } => "quote".to_owned(),
            other => format!("{other:?}"),
        }));
        state = next;
    }
    (state, told.join(", "))
}

fn boot(saved: Option<Summary>) -> State {
    let certs = saved.is_some();
    let floor = saved.as_ref().and_then(|s| s.timestamp);
    one(State::default(), Event::Started { certs, saved, floor }).0
}

/// A node that just asked for the config.
fn asking() -> State {
    one(boot(None), Event::Certs(Ok(()))).0
}

#[test]
fn certificates_come_before_anything_else() {
    let events = vec![
        Event::Started { certs: false, saved: None, floor: None },
        Event::Certs(Err(why())),
        Event::Alarm(Alarm::Poll),
        Event::Certs(Ok(())),
        config("h1", 5),
    ];
    let (state, told) = play(State::default(), events);
    let want = "Attest in 15 s, FetchCerts, Poll in 2 s, FetchCerts, Certs in 86400 s, ask \"\", Apply, Poll in 60 s";
    assert_eq!(told, want);
    assert_eq!((state.source, state.hash.as_str()), (ConfigSource::Controller, "h1"));
}

#[test]
fn the_same_hash_changes_nothing() {
    let (state, _) = play(asking(), vec![config("h1", 5), Event::Alarm(Alarm::Poll)]);
    for answer in [config("h1", 6), Event::Config(Answer::Unchanged)] {
        assert_eq!(play(state.clone(), vec![answer]).1, "Poll in 60 s");
    }
}

#[test]
fn an_empty_hash_is_an_error_and_keeps_what_is_in_force() {
    for state in [asking(), play(asking(), vec![config("h1", 5), Event::Alarm(Alarm::Poll)]).0] {
        let (before, hash) = (state.source, state.hash.clone());
        let (after, told) = play(state, vec![config("", 6)]);
        assert_eq!(told, "Poll in 60 s");
        assert_eq!((after.source, after.hash), (before, hash));
        assert!(after.problem.unwrap().text.contains("without a hash"));
    }
}

#[test]
fn what_is_refused_is_not_remembered_and_its_trouble_keeps_its_age() {
    let first = |at| Event::Config(Answer::Unusable(Problem { since: UnixMillis(at), ..why() }));
    let events = vec![config("h1", 5), Event::Alarm(Alarm::Poll), config("old", 4)];
    let (state, told) = play(asking(), events);
    assert!(!told.contains("Apply, Poll in 60 s, ask \"h1\", Apply"), "{told}");
    assert_eq!(state.hash, "h1");
    let (state, told) = play(state, vec![Event::Alarm(Alarm::Poll), first(20)]);
    assert!(told.starts_with("ask \"h1\""), "{told}");
    let (state, _) = play(state, vec![Event::Alarm(Alarm::Poll), first(30)]);
    assert_eq!(state.problem.unwrap().since, UnixMillis(20));
}

#[test]
fn a_config_that_is_not_saved_is_in_force_and_asked_for_again() {
    let (state, effects) = one(asking(), config("h1", 5));
    assert_eq!(effects, [Effect::Apply]);
    let (state, told) = play(state, vec![Event::Applied(Err(why())), Event::Alarm(Alarm::Poll)]);
    assert_eq!(told, "Poll in 60 s, ask \"\"");
    assert_eq!((state.source, state.floor), (ConfigSource::Controller, Some(UnixMillis(5))));
    assert!(state.problem.is_some());
    let (state, told) = play(state, vec![config("h1", 5)]);
    assert_eq!((told.as_str(), state.hash.as_str()), ("Apply, Poll in 60 s", "h1"));
    assert_eq!(state.problem, None);
}

#[test]
fn a_hash_without_a_config_is_an_error_and_keeps_what_is_in_force() {
    let nothing = Event::Config(Answer::Config { hash: "h2".into(), config: None });
    let (state, told) = play(asking(), vec![config("h1", 5), Event::Alarm(Alarm::Poll), nothing]);
    assert!(told.ends_with("ask \"h1\", Poll in 60 s"), "{told}");
    assert_eq!(state.source, ConfigSource::Controller);
    assert!(state.problem.is_some());
}

#[test]
fn an_answer_we_cannot_use_is_told_and_changes_nothing() {
    let (state, told) = play(asking(), vec![Event::Config(Answer::Unusable(why()))]);
    assert_eq!((told.as_str(), state.hash.as_str()), ("Poll in 60 s", ""));
    assert!(state.problem.is_some() && state.last_contact.is_some());
}

#[test]
fn a_config_for_another_node_is_refused() {
    let other =
        Summary { id: "00000000-0000-4000-8000-000000000001".parse().unwrap(), ..summary(5) };
    let answer = Event::Config(Answer::Config { hash: "h".into(), config: Some(other) });
    let (state, told) = play(asking(), vec![answer]);
    assert_eq!(told, "Poll in 60 s");
    assert!(state.problem.unwrap().text.contains("00000000-0000-4000-8000-000000000001"));
}

#[test]
fn time_does_not_run_backwards_also_across_a_reboot() {
    let events = vec![Event::Certs(Ok(())), config("old", 4)];
    let (state, told) = play(boot(Some(summary(5))), events);
    assert_eq!(told, "Certs in 86400 s, ask \"\", Poll in 60 s");
    assert_eq!((state.floor, state.source), (Some(UnixMillis(5)), ConfigSource::None));
    // Equal is fine: it is the config we have.
    assert!(
        play(boot(Some(summary(5))), vec![Event::Certs(Ok(())), config("x", 5)])
            .1
            .contains("Apply")
    );
}

#[test]
fn without_a_controller_the_saved_config_runs_after_a_few_seconds() {
    let events = vec![
        Event::Started { certs: true, saved: Some(summary(5)), floor: Some(UnixMillis(5)) },
        Event::Certs(Err(why())),
        Event::Alarm(Alarm::Saved),
    ];
    let (state, told) = play(State::default(), events);
    assert_eq!(
        told,
        "Attest in 15 s, Saved in 5 s, FetchCerts, Certs in 120 s, ask \"\", ApplySaved"
    );
    assert_eq!(state.source, ConfigSource::Saved);
}

#[test]
fn the_saved_config_never_replaces_one_of_the_controller() {
    let events = vec![Event::Certs(Ok(())), config("h", 6), Event::Alarm(Alarm::Saved)];
    let (state, told) = play(boot(Some(summary(5))), events);
    assert!(!told.contains("ApplySaved"), "{told}");
    assert_eq!(state.source, ConfigSource::Controller);
}

#[test]
fn an_obsolete_answer_leaves_the_saved_config_to_run() {
    let events = vec![Event::Certs(Ok(())), config("old", 4), Event::Alarm(Alarm::Saved)];
    assert!(play(boot(Some(summary(5))), events).1.ends_with("ApplySaved"));
}

#[test]
fn forbidden_means_attest_and_ask_again_with_the_token() {
    let events = vec![
        Event::Config(Answer::Forbidden),
        Event::Nonce(Ok(vec![1])),
        Event::Quote(Ok(vec![2])),
    ];
    assert_eq!(play(asking(), events).1, "AskNonce, quote, ask \"\" with token");
}

#[test]
fn a_refused_quote_waits_and_takes_a_new_nonce() {
    let events = vec![
        Event::Config(Answer::Forbidden),
        Event::Nonce(Ok(vec![1])),
        Event::Quote(Err(why())),
        Event::Alarm(Alarm::Poll),
        Event::Config(Answer::Forbidden),
    ];
    assert_eq!(play(asking(), events).1, "AskNonce, quote, Poll in 15 s, ask \"\", AskNonce");
}

#[test]
fn a_refused_token_does_not_turn_in_circles() {
    let state = State { token: Some(vec![1]), ..asking() };
    let (state, told) = play(state, vec![Event::Config(Answer::Forbidden)]);
    assert_eq!((told.as_str(), state.token), ("Poll in 15 s", None));
}

#[test]
fn an_unknown_signer_means_new_certificates_once() {
    let miss = || Event::Config(Answer::UnknownSigner(why()));
    let poll = || vec![miss(), Event::Certs(Ok(())), miss()];
    let want = "FetchCerts, Certs in 86400 s, ask \"\", Poll in 60 s";
    let (state, told) = play(asking(), poll());
    assert_eq!(told, want);
    // The next poll is as this one.
    let (state, told) = play(state, vec![Event::Alarm(Alarm::Poll)]);
    assert_eq!(told, "ask \"\"");
    assert_eq!(play(state, poll()).1, want);
}

#[test]
fn a_new_interval_counts_from_the_config_that_brings_it() {
    let new = Summary { interval: Duration::from_secs(5), ..summary(6) };
    let answer = Event::Config(Answer::Config { hash: "h".into(), config: Some(new) });
    assert_eq!(play(asking(), vec![answer]).1, "Apply, Poll in 5 s");
}

#[test]
fn a_new_certificate_hash_means_new_certificates() {
    let new = Summary { certs_hash: "c2".into(), ..summary(6) };
    let answer = Event::Config(Answer::Config { hash: "h2".into(), config: Some(new) });
    let (_, told) = play(asking(), vec![config("h1", 5), Event::Alarm(Alarm::Poll), answer]);
    assert!(told.ends_with("Apply, FetchCerts"), "{told}");
}

#[test]
fn a_forgotten_node_says_so_and_keeps_its_config() {
    let events = vec![config("h", 5), Event::Alarm(Alarm::Poll), Event::Config(Answer::Unknown)];
    let (state, _) = play(asking(), events);
    assert!(state.forgotten);
    assert_eq!(state.source, ConfigSource::Controller);
    let back = play(state, vec![Event::Alarm(Alarm::Poll), Event::Config(Answer::Unchanged)]).0;
    assert!(!back.forgotten);
}

#[test]
fn a_port_that_comes_up_shortens_the_wait_after_a_failure() {
    let down = vec![Event::Config(Answer::Failed(why())), Event::NetworkUp];
    assert_eq!(play(asking(), down).1, "Poll in 2 s, ask \"\"");
    let fine = vec![Event::Config(Answer::Unchanged), Event::NetworkUp];
    assert_eq!(play(asking(), fine).1, "Poll in 60 s");
}

#[test]
fn secrets_of_an_unknown_certificate_mean_new_certificates_once() {
    let sealed = || {
        let new = Summary { wants_certs: true, ..summary(5) };
        Event::Config(Answer::Config { hash: "h".into(), config: Some(new) })
    };
    let (state, told) = play(asking(), vec![sealed(), Event::Certs(Ok(()))]);
    assert_eq!(told, "Apply, FetchCerts, Certs in 86400 s, ask \"\"");
    // They help: the config is remembered.
    let helped = play(state.clone(), vec![config("h", 5)]);
    assert_eq!((helped.1.as_str(), helped.0.hash.as_str()), ("Apply, Poll in 60 s", "h"));
    // Or not: it is remembered all the same, and nothing turns in circles.
    let (state, told) = play(state, vec![sealed()]);
    assert_eq!((told.as_str(), state.hash.as_str()), ("Apply, Poll in 60 s", "h"));
}

#[test]
fn the_setting_overrides_the_field_for_maintenance() {
    for (field, setting, want) in [
        (false, None, false),
        (true, None, true),
        (true, Some("none"), true),
        (true, Some("Disabled"), false),
        (false, Some(" on "), true),
        (false, Some("enable"), true),
        (true, Some("off"), false),
        (true, Some("perhaps"), true),
    ] {
        assert_eq!(maintenance(field, setting), want, "{field} {setting:?}");
    }
}

#[test]
fn how_far_attestation_is_is_told() {
    let forbidden = || Event::Config(Answer::Forbidden);
    let (state, _) = play(asking(), vec![forbidden()]);
    assert_eq!(state.attestation, Attestation::NonceWait);
    let (state, _) = play(state, vec![Event::Nonce(Ok(vec![1]))]);
    assert_eq!(state.attestation, Attestation::VerdictWait);
    let (state, _) = play(state, vec![Event::Quote(Err(why()))]);
    assert_eq!(state.attestation, Attestation::RestartWait);
    let again = vec![
        Event::Alarm(Alarm::Poll),
        forbidden(),
        Event::Nonce(Ok(vec![1])),
        Event::Quote(Ok(vec![2])),
        config("h", 5),
    ];
    let (state, _) = play(state, again);
    assert_eq!(state.attestation, Attestation::Complete);
    // A controller that wants another proof gets it within half a minute.
    let (state, told) = play(state, vec![Event::Alarm(Alarm::Poll), forbidden()]);
    assert!(told.ends_with("Poll in 15 s"), "{told}");
    let (_, told) = play(state, vec![Event::Alarm(Alarm::Poll), forbidden()]);
    assert_eq!(told, "ask \"h\", AskNonce");
}

/// All orders of events up to a depth, power cuts included. The disk holds what `Apply` saved.
#[test]
fn whatever_happens_time_never_runs_backwards_and_the_node_never_falls_silent() {
    let events = [
        Event::NetworkUp,
        Event::CertsStale,
        Event::Certs(Ok(())),
        Event::Certs(Err(why())),
        config("a", 4),
        config("b", 6),
        Event::Config(Answer::Unchanged),
        Event::Config(Answer::Forbidden),
        Event::Config(Answer::UnknownSigner(why())),
        Event::Config(Answer::Failed(why())),
        Event::Nonce(Ok(vec![1])),
        Event::Quote(Ok(vec![2])),
        Event::Quote(Err(why())),
        Event::Alarm(Alarm::Poll),
        Event::Alarm(Alarm::Saved),
        Event::Alarm(Alarm::Attest),
    ];
    let mut seen = vec![(boot(None), None::<Summary>)];
    for _ in 0..6 {
        let mut next = Vec::new();
        for (state, disk) in &seen {
            for event in &events {
                let (after, effects) = one(state.clone(), event.clone());
                let mut disk = disk.clone();
                let (after, effects) = if effects == [Effect::Apply] {
                    let Event::Config(Answer::Config { config: Some(new), .. }) = event else {
                        panic!("applied out of nothing: {event:?}")
                    };
                    assert!(disk.as_ref().is_none_or(|d| d.timestamp <= new.timestamp));
                    disk = Some(new.clone());
                    one(after, Event::Applied(Ok(())))
                } else {
                    (after, effects)
                };
                let polls = effects.iter().any(|e| matches!(e, Effect::Alarm(Alarm::Poll, _)));
                let fell_asleep = state.doing != Doing::Waiting && after.doing == Doing::Waiting;
                assert!(!fell_asleep || polls, "{state:?} and {event:?}: nothing wakes us again");
                let rebooted = boot(disk.clone());
                assert_eq!(rebooted.floor, disk.as_ref().and_then(|d| d.timestamp));
                next.push((after, disk.clone()));
                next.push((rebooted, disk));
            }
        }
        next.sort_by_key(|(s, d)| format!("{s:?}{d:?}"));
        next.dedup();
        seen = next;
    }
}

#[test]
fn each_boot_attests_once_although_nobody_asks() {
    let events = vec![
        Event::Alarm(Alarm::Attest), // too early: the controller did not answer yet
        config("h1", 5),
        Event::Alarm(Alarm::Attest),
        Event::Nonce(Ok(vec![1])),
        Event::Quote(Ok(vec![2])),
        Event::Config(Answer::Unchanged),
        Event::Alarm(Alarm::Attest),
    ];
    let (state, told) = play(asking(), events);
    let want = "Attest in 15 s, Apply, Poll in 60 s, AskNonce, quote, ask \"h1\" with token, \
                Poll in 60 s";
    assert_eq!(told, want);
    assert_eq!((state.attestation, state.attestation_problem), (Attestation::Complete, None));
}

#[test]
fn a_controller_that_takes_no_quote_has_configs_all_the_same() {
    let events = vec![
        config("h1", 5),
        Event::Alarm(Alarm::Attest),
        Event::Alarm(Alarm::Poll), // lost: something is under way
        Event::Nonce(Err(why())),
        Event::Config(Answer::Unchanged),
    ];
    let (state, told) = play(asking(), events);
    let want = "Apply, Poll in 60 s, AskNonce, ask \"h1\", Attest in 15 s, Poll in 60 s";
    assert_eq!(told, want);
    assert_eq!((state.problem, state.attestation), (None, Attestation::RestartWait));
    assert_eq!(state.attestation_problem.unwrap().text, "no");
    // Ever rarer; and when the controller asks for it, the config waits for it again.
    let (state, told) = play(
        State { attestation_problem: None, problem: None, ..play(asking(), vec![]).0 },
        vec![config("h1", 5), Event::Alarm(Alarm::Attest), Event::Nonce(Err(why()))],
    );
    assert!(told.ends_with("Attest in 15 s"), "{told}");
    let events = vec![
        Event::Config(Answer::Unchanged),
        Event::Alarm(Alarm::Attest),
        Event::Nonce(Err(why())),
        Event::Config(Answer::Forbidden),
        Event::Nonce(Err(why())),
    ];
    let (state, told) = play(state, events);
    assert!(told.ends_with("Attest in 30 s, AskNonce, Poll in 15 s"), "{told}");
    assert!(state.problem.is_some());
}

/// The same with a console.
fn beside(state: State, event: Event) -> (State, Vec<Effect>) {
    let properties = Properties::default();
    let at = Moment {
        me: ME.parse().unwrap(),
        properties: &properties,
        console: true,
        now: UnixMillis(9),
        jitter: Jitter(1.0),
    };
    step(state, event, at)
}

#[test]
fn a_console_stands_in_until_the_controller_is_back() {
    let (state, _) = beside(boot(Some(summary(5))), Event::Certs(Ok(())));
    let (state, effects) = beside(state, Event::Config(Answer::Failed(why())));
    let asked = Effect::AskConsole { hash: String::new(), token: None };
    assert_eq!((effects, &state.doing), (vec![asked], &Doing::Console));

    let told = Answer::Config { hash: "h2".into(), config: Some(summary(6)) };
    let (state, effects) = beside(state, Event::Console(told));
    assert_eq!(effects, [Effect::Apply]);
    let (state, effects) = beside(state, Event::Applied(Ok(())));
    assert_eq!(effects, [Effect::Alarm(Alarm::Poll, Duration::from_secs(60))]);
    assert_eq!((state.hash.as_str(), state.floor), ("h2", Some(UnixMillis(6))));
    // It is not the controller: that is still not reached, and asked first the next time.
    assert!(state.stands_in.is_some() && state.problem.is_some() && state.failures == 1);
    assert_eq!(state.last_contact, None);
    let (state, effects) = beside(state, Event::Alarm(Alarm::Poll));
    assert_eq!(effects, [Effect::AskConfig { hash: "h2".into(), token: None }]);
    let (state, _) = beside(state, Event::Config(Answer::Unchanged));
    assert_eq!((state.stands_in, state.problem, state.failures), (None, None, 0));
}

#[test]
fn a_console_can_hand_out_no_older_config_and_one_that_is_silent_is_none() {
    let (state, _) = beside(boot(Some(summary(5))), Event::Certs(Ok(())));
    let (asked, _) = beside(state, Event::Config(Answer::Failed(why())));
    let old = Answer::Config { hash: "h2".into(), config: Some(summary(4)) };
    let (state, effects) = beside(asked.clone(), Event::Console(old));
    assert!(!effects.contains(&Effect::Apply));
    assert!(state.problem.unwrap().text.contains("before the one in force"));
    let (state, effects) = beside(asked, Event::Console(Answer::Failed(why())));
    assert_eq!((state.stands_in, state.failures), (None, 1));
    assert!(matches!(effects[..], [Effect::Alarm(Alarm::Poll, _)]));
}
