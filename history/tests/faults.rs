//! Each fault of a gateway is caught, and named as what it is.

#![allow(clippy::unwrap_used)]

mod support;

use support::simulator::{self, Random};
use support::{alice_and_bob, entry, judged, link, place, place_of, sent, single};
use throng_history::{Class, Event, Kind, What};

#[test]
fn a_confirmed_message_that_never_came_is_lost() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    let report = story.send(&sent).confirm(&sent, "id1").drained();
    assert_eq!((report.count(Kind::Lost), report.kinds.len()), (1, 1));
    assert_eq!(report.loss_rate_below(), None);
    assert_eq!(
        report.violations[0].to_string(),
        "lost, at the end: m1 from alice to bob never came to bob/phone"
    );
}

#[test]
fn a_gap_that_was_told_before_it_was_sent_excuses_no_loss() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.gap("bob", 2).send(&sent).confirm(&sent, "id1");
    assert_eq!(story.kinds(), [Kind::Lost]);
}

#[test]
fn one_of_two_devices_that_misses_a_message_is_a_loss() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    let mut on = link("bob", 3);
    on.device = "laptop".to_owned();
    story.add(What::Open { on, cursor: None });
    story.send(&sent).confirm(&sent, "id1");
    let report = story.get("bob", 2, place(1), "id1", &sent).drained();
    assert_eq!((report.count(Kind::Lost), report.totals.owed), (1, 2));
    assert!(report.violations[0].text.ends_with("bob/laptop"));
}

#[test]
fn a_member_of_a_group_that_misses_a_message_is_a_loss() {
    let to_team = sent(Class::Group, "alice", "m1", "team");
    let mut story = alice_and_bob();
    let members = ["alice", "bob", "carol"].map(str::to_owned).to_vec();
    let group = "team".to_owned();
    story
        .open("carol", 3, None)
        .add(What::Group { group, members });
    story.send(&to_team).confirm(&to_team, "id1");
    story.get("bob", 2, place(1), "id1", &to_team);
    let report = story.drained();
    assert_eq!((report.count(Kind::Lost), report.kinds.len()), (1, 1));
    assert!(report.violations[0].text.ends_with("carol/phone"));
}

#[test]
fn what_the_application_gets_again_is_a_duplicate_by_message_id() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).close("bob", 2).open("bob", 3, None);
    story.get("bob", 3, place(1), "id1", &sent);
    assert_eq!(story.kinds(), [Kind::DuplicateId]);
}

#[test]
fn a_message_under_two_ids_is_a_duplicate_by_msgid_and_two_ids() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).send(&sent).confirm(&sent, "id2");
    story.get("bob", 2, place(2), "id2", &sent);
    assert_eq!(story.kinds(), [Kind::DuplicateMsgid, Kind::TwoIds]);
}

#[test]
fn a_repetition_that_gets_another_id_is_two_ids_for_one_msgid() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).send(&sent).confirm(&sent, "id2");
    assert_eq!(story.kinds(), [Kind::TwoIds]);
}

#[test]
fn two_messages_under_one_id_are_named() {
    let sent = single("alice", "m2", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).send(&sent).confirm(&sent, "id1");
    assert!(story.kinds().contains(&Kind::SharedId));
}

#[test]
fn one_message_at_two_places_of_an_inbox_is_named() {
    let mut story = alice_and_bob();
    story.exchange(1).receive("bob", 2, place(2), "id1");
    assert_eq!(story.kinds(), [Kind::TwoPlaces]);
}

#[test]
fn what_comes_before_what_was_accepted_earlier_is_reordered() {
    let (one, two) = (single("alice", "m1", "bob"), single("alice", "m2", "bob"));
    let mut story = alice_and_bob();
    story.send(&one).confirm(&one, "id1");
    story.send(&two).confirm(&two, "id2");
    story.get("bob", 2, place(2), "id2", &two);
    story.get("bob", 2, place(1), "id1", &one);
    // The first on a connection without a cursor shows no hole.
    let report = story.drained();
    assert_eq!((report.count(Kind::Reordered), report.kinds.len()), (1, 1));
}

#[test]
fn a_place_before_that_of_an_earlier_message_is_reordered() {
    let (one, two) = (single("alice", "m1", "bob"), single("carol", "m2", "bob"));
    let mut story = alice_and_bob();
    story.send(&one).confirm(&one, "id1");
    story.send(&two).confirm(&two, "id2");
    story.get("bob", 2, place(1), "id2", &two);
    story.get("bob", 2, place(2), "id1", &one);
    let report = story.drained();
    assert_eq!((report.count(Kind::Reordered), report.kinds.len()), (1, 1));
    assert_eq!(
        report.violations[0].text,
        "m1 from alice to bob stands behind m2 from carol to bob, which was accepted after it"
    );
}

#[test]
fn messages_of_one_connection_that_overtake_each_other_are_reordered() {
    let (one, two) = (single("alice", "m1", "bob"), single("alice", "m2", "bob"));
    let mut story = alice_and_bob();
    story.send(&one).send(&two);
    story.confirm(&one, "id1").confirm(&two, "id2");
    story.get("bob", 2, place(1), "id2", &two);
    story.get("bob", 2, place(2), "id1", &one);
    assert_eq!(story.kinds(), [Kind::Reordered]);
}

#[test]
fn messages_to_a_group_that_overtake_each_other_are_reordered() {
    let mut story = alice_and_bob();
    let members = ["alice", "bob", "carol"].map(str::to_owned).to_vec();
    let group = "team".to_owned();
    story.open("carol", 3, None);
    story.add(What::Group { group, members });
    let [one, two] = ["m1", "m2"].map(|msgid| sent(Class::Group, "alice", msgid, "team"));
    story.send(&one).confirm(&one, "id1");
    story.send(&two).confirm(&two, "id2");
    story.get("bob", 2, place(1), "id1", &one);
    story.get("bob", 2, place(2), "id2", &two);
    assert_eq!(story.judged().count(Kind::Reordered), 0);
    story.get("carol", 3, place(1), "id2", &two);
    story.get("carol", 3, place(2), "id1", &one);
    let report = story.drained();
    assert_eq!((report.count(Kind::Reordered), report.kinds.len()), (1, 1));
}

#[test]
fn an_application_that_gets_things_out_of_order_is_named_where_the_wire_was_right() {
    let (one, two) = (single("alice", "m1", "bob"), single("alice", "m2", "bob"));
    let mut story = alice_and_bob();
    for (n, sent, id) in [(1, &one, "id1"), (2, &two, "id2")] {
        story.send(sent).confirm(sent, id);
        story.receive("bob", 2, place(n), id);
    }
    for (n, sent, id) in [(2, &two, "id2"), (1, &one, "id1")] {
        story.add(What::Deliver {
            on: link("bob", 2),
            entry: entry(place(n), id),
            sent: sent.clone(),
        });
    }
    assert_eq!(story.kinds(), [Kind::Reordered]);
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    let mut story = alice_and_bob();
    story.get("bob", 2, place(1), "id1", &single("alice", "m1", "bob"));
    assert_eq!(story.kinds(), [Kind::Phantom]);
}

#[test]
fn who_gets_what_is_for_another_is_the_wrong_receiver() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).open("eve", 3, None);
    story.get("eve", 3, place(1), "id1", &sent);
    assert_eq!(story.kinds(), [Kind::WrongReceiver]);
}

#[test]
fn who_is_in_no_group_and_gets_its_messages_is_the_wrong_receiver() {
    let to_team = sent(Class::Group, "alice", "m1", "team");
    let (group, members) = ("team".to_owned(), vec!["alice".to_owned()]);
    let mut story = alice_and_bob();
    story.add(What::Group { group, members }).send(&to_team);
    story.confirm(&to_team, "id1");
    story.get("bob", 2, place(1), "id1", &to_team);
    assert_eq!(story.kinds(), [Kind::WrongReceiver]);
}

#[test]
fn a_17_after_a_forged_ack_is_a_17_without_acknowledgement() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.open("eve", 3, None).send(&sent).confirm(&sent, "id1");
    story
        .get("bob", 2, place(1), "id1", &sent)
        .ack("eve", 3, "id1");
    story.notify("alice", 1, place(1), "id1", "bob");
    assert_eq!(story.kinds(), [Kind::NoticeWithoutAck]);
}

#[test]
fn a_forged_ack_that_is_accepted_is_named() {
    let mut story = alice_and_bob();
    story.exchange(1).open("eve", 3, None);
    story.ack("eve", 3, "id1").answer("eve", 3, "id1");
    assert_eq!(story.kinds(), [Kind::ForgedAck]);
}

#[test]
fn a_cursor_short_of_a_message_acknowledges_nothing_of_it() {
    let sent = single("alice", "m2", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).send(&sent).confirm(&sent, "id2");
    story.get("bob", 2, place(2), "id2", &sent);
    story.close("bob", 2).open("bob", 3, Some(place(1)));
    story.notify("alice", 1, place(2), "id2", "bob");
    assert_eq!(story.kinds(), [Kind::NoticeWithoutAck]);
}

#[test]
fn a_16_that_nobody_asked_for_is_named() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).confirm(&sent, "id1");
    story.get("bob", 2, place(1), "id1", &sent);
    story.answer("bob", 2, "id1");
    assert_eq!(story.kinds(), [Kind::AnswerWithoutAck]);
}

#[test]
fn a_16_about_another_message_than_the_15_is_named() {
    let sent = single("alice", "m2", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).send(&sent).confirm(&sent, "id2");
    story.get("bob", 2, place(2), "id2", &sent);
    story.ack("bob", 2, "id1").answer("bob", 2, "id2");
    assert_eq!(story.kinds(), [Kind::AnswerWithoutAck]);
}

#[test]
fn a_second_17_is_named_and_one_that_comes_again_elsewhere_is_not() {
    let mut story = alice_and_bob();
    story.exchange(1).close("alice", 1).open("alice", 3, None);
    story.notify("alice", 3, place(1), "id1", "bob");
    assert_eq!(story.kinds(), []);
    story.notify("alice", 3, place(2), "id1", "bob");
    assert_eq!(story.kinds(), [Kind::SecondNotice]);
}

#[test]
fn a_17_to_somebody_who_did_not_send_is_foreign() {
    let mut story = alice_and_bob();
    story.exchange(1).open("eve", 3, None);
    story.notify("eve", 3, place(1), "id1", "bob");
    assert_eq!(story.kinds(), [Kind::ForeignNotice]);
}

#[test]
fn an_acknowledgement_that_was_answered_and_never_told_is_a_lost_17() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).confirm(&sent, "id1");
    story.get("bob", 2, place(1), "id1", &sent);
    story.ack("bob", 2, "id1").answer("bob", 2, "id1");
    assert_eq!(story.kinds(), [Kind::LostNotice]);
}

#[test]
fn places_that_are_left_out_are_a_silent_hole() {
    let sent = single("alice", "m9", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).send(&sent).confirm(&sent, "id9");
    let report = story.get("bob", 2, place(4), "id9", &sent).drained();
    assert_eq!(report.kinds.keys().collect::<Vec<_>>(), [&Kind::Hole]);
    assert!(
        report.violations[0]
            .text
            .ends_with("2 left out before 4, first 2")
    );
}

#[test]
fn a_message_to_a_group_explains_one_missing_place_at_the_device_that_sent_it() {
    let to_team = sent(Class::Group, "bob", "m1", "team");
    let single = single("alice", "m2", "bob");
    let story = |missing: u64, is_again: bool| {
        let mut story = alice_and_bob();
        let (group, members) = ("team".to_owned(), vec!["bob".to_owned()]);
        story.exchange(1).add(What::Group { group, members });
        let (sent, connection) = (to_team.clone(), Some(2));
        story.add(What::Send { sent, connection });
        story.confirm(&to_team, "id8").send(&single);
        story.confirm(&single, "id9");
        story.get("bob", 2, place(2 + missing), "id9", &single);
        if is_again {
            story.close("bob", 2).open("bob", 3, Some(place(1)));
            story.receive("bob", 3, place(2 + missing), "id9");
        }
        story.kinds()
    };
    assert_eq!(story(1, false), []);
    assert_eq!(story(1, true), [], "it is missing on each connection");
    assert_eq!(story(2, false), [Kind::Hole]);
}

#[test]
fn places_between_a_cursor_and_the_first_entry_are_a_silent_hole() {
    let sent = single("alice", "m9", "bob");
    let mut story = alice_and_bob();
    story
        .exchange(1)
        .close("bob", 2)
        .open("bob", 3, Some(place(1)));
    story.send(&sent).confirm(&sent, "id9");
    story.get("bob", 3, place(3), "id9", &sent);
    assert_eq!(story.kinds(), [Kind::Hole]);
}

#[test]
fn a_new_epoch_without_a_word_is_a_silent_hole() {
    let sent = single("alice", "m9", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).send(&sent).confirm(&sent, "id9");
    story.get("bob", 2, place_of("e2", 2), "id9", &sent);
    assert_eq!(story.kinds(), [Kind::Hole]);
}

#[test]
fn an_entry_that_comes_twice_on_one_connection_is_repeated() {
    let mut story = alice_and_bob();
    story.exchange(1).receive("bob", 2, place(1), "id1");
    assert_eq!(story.kinds(), [Kind::Repeated]);
}

#[test]
fn an_entry_that_the_cursor_covers_is_repeated() {
    let mut story = alice_and_bob();
    story
        .exchange(1)
        .close("bob", 2)
        .open("bob", 3, Some(place(1)));
    story.receive("bob", 3, place(1), "id1");
    assert_eq!(story.kinds(), [Kind::Repeated]);
}

#[test]
fn a_message_that_was_refused_for_good_and_came_is_named() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).refuse(&sent);
    story.get("bob", 2, place(1), "id1", &sent);
    assert_eq!(story.kinds(), [Kind::FailedDelivered]);
}

#[test]
fn a_message_that_came_before_it_was_refused_is_named_too() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).get("bob", 2, place(1), "id1", &sent);
    story.refuse(&sent);
    assert_eq!(story.kinds(), [Kind::FailedDelivered]);
}

#[test]
fn a_refused_message_that_is_remembered_as_accepted_is_named() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).refuse(&sent).send(&sent);
    story.confirmed(&sent, "id1", true);
    story.get("bob", 2, place(1), "id1", &sent);
    assert_eq!(story.kinds(), [Kind::FalseRepetition]);
}

#[test]
fn what_comes_more_than_ninety_seconds_after_it_was_due_is_late() {
    let sent = single("alice", "m1", "bob");
    let comes_after = |secs| {
        let mut story = alice_and_bob();
        let fault = "a link is cut".to_owned();
        story.add(What::FaultStart { fault });
        story.send(&sent).confirm(&sent, "id1").pass_secs(300);
        story.add(What::Heal {}).pass_secs(secs);
        story.get("bob", 2, place(1), "id1", &sent).kinds()
    };
    assert_eq!(comes_after(89), []);
    assert_eq!(comes_after(91), [Kind::Late]);
}

#[test]
fn a_history_that_was_not_drained_or_not_healed_proves_nothing() {
    let mut story = alice_and_bob();
    let report = story.exchange(1).judged();
    assert_eq!(report.kinds.keys().collect::<Vec<_>>(), [&Kind::NotDrained]);
    let fault = "a node is killed".to_owned();
    story.add(What::FaultStart { fault });
    assert_eq!(story.kinds(), [Kind::NotDrained]);
}

#[test]
fn a_history_that_contradicts_itself_is_named() {
    let mut story = alice_and_bob();
    story.confirm(&single("alice", "m1", "bob"), "id1");
    story.receive("bob", 1, place(1), "id1");
    story.receive("bob", 7, place(1), "id1");
    story.open("bob", 2, None);
    let fault = "nothing".to_owned();
    story.add(What::FaultStop { fault });
    let report = story.drained();
    assert_eq!((report.count(Kind::Incoherent), report.kinds.len()), (5, 1));
}

#[test]
fn of_many_violations_the_first_are_told_and_all_are_counted() {
    let mut story = alice_and_bob();
    for n in 0..1000 {
        let sent = single("alice", &format!("m{n}"), "bob");
        story.send(&sent).confirm(&sent, &format!("id{n}"));
    }
    let report = story.drained();
    assert_eq!(
        (report.count(Kind::Lost), report.violations.len()),
        (1000, 20)
    );
    assert!(report.to_string().ends_with("- and 980 more"), "{report}");
}

/// Applies one fault to a history of a correct system, if there is a place for it.
type Fault = fn(&mut Vec<Event>, &mut Random) -> bool;

fn pick(events: &[Event], random: &mut Random, is_fit: impl Fn(&What) -> bool) -> Option<usize> {
    let fit: Vec<usize> = (0..events.len())
        .filter(|&at| is_fit(&events[at].what))
        .collect();
    (!fit.is_empty()).then(|| fit[random.below(fit.len())])
}

#[test]
fn a_fault_is_found_wherever_it_hides_in_what_a_system_goes_through() {
    let faults: [(&str, &[Kind], Fault); 6] = [
        // A message that nobody knows the outcome of may be lost, so it must be confirmed.
        (
            "the application is not told",
            &[Kind::Lost],
            |events, random| {
                let confirmed: Vec<_> = events
                    .iter()
                    .filter_map(|event| match &event.what {
                        What::Confirmed { sent, .. } if sent.class == Class::Single => Some(sent),
                        _ => None,
                    })
                    .cloned()
                    .collect();
                let gaps = events
                    .iter()
                    .rposition(|e| matches!(e.what, What::Gap { .. }));
                let after = gaps.unwrap_or(0);
                let is_fit = |what: &What| matches!(what, What::Deliver { sent, .. } if confirmed.contains(sent));
                let at = pick(&events[after..], random, is_fit).map(|at| at + after);
                // Only what was sent after the last gap is surely owed.
                let Some(at) = at.filter(|&at| {
                    let What::Deliver { sent, .. } = &events[at].what else {
                        return false;
                    };
                    let begins =
                        |e: &Event| matches!(&e.what, What::Send { sent: of, .. } if of == sent);
                    events
                        .iter()
                        .position(begins)
                        .is_some_and(|begin| begin > after)
                }) else {
                    return false;
                };
                events.remove(at);
                true
            },
        ),
        (
            "it is told twice",
            &[Kind::DuplicateId],
            |events, random| {
                let at = pick(events, random, |what| matches!(what, What::Deliver { .. }));
                at.map(|at| events.insert(at, events[at].clone())).is_some()
            },
        ),
        ("nobody sent it", &[Kind::Phantom], |events, random| {
            let at = pick(events, random, |what| matches!(what, What::Deliver { .. }));
            at.map(|at| {
                if let What::Deliver { sent, .. } = &mut events[at].what {
                    sent.msgid.push('x');
                }
            })
            .is_some()
        }),
        (
            "one id becomes another",
            &[Kind::TwoIds],
            |events, random| {
                let at = pick(events, random, |what| matches!(what, What::Deliver { .. }));
                at.map(|at| {
                    if let What::Deliver { entry, .. } = &mut events[at].what {
                        entry.message_id.push('x');
                    }
                })
                .is_some()
            },
        ),
        (
            "it comes again at once",
            &[Kind::Repeated],
            |events, random| {
                let at = pick(events, random, |what| matches!(what, What::Receive { .. }));
                at.map(|at| events.insert(at, events[at].clone())).is_some()
            },
        ),
        (
            "an answer comes unasked",
            &[Kind::AnswerWithoutAck],
            |events, random| {
                let mut asked = 0;
                let at = pick(events, random, |what| matches!(what, What::Answered { .. }));
                // The last answer on its connection, so that no later question is answered by it.
                let Some(at) = at else { return false };
                let What::Answered { on, .. } = events[at].what.clone() else {
                    return false;
                };
                for event in events.iter() {
                    match &event.what {
                        What::Ack { on: of, .. } if *of == on => asked += 1,
                        What::Answered { on: of, .. } if *of == on => asked -= 1,
                        _ => {}
                    }
                }
                let is_last = !events[at + 1..].iter().any(|event| {
                matches!(&event.what, What::Ack { on: of, .. } | What::Answered { on: of, .. } if *of == on)
            });
                if asked != 0 || !is_last {
                    return false;
                }
                events.insert(at, events[at].clone());
                true
            },
        ),
    ];
    for (what, kinds, inject) in faults {
        let mut tried = 0;
        for seed in 1..=1000 {
            if tried == 30 {
                break;
            }
            let mut events = simulator::history(seed, 300);
            if !inject(&mut events, &mut Random::new(seed)) {
                continue;
            }
            tried += 1;
            let report = judged(&events);
            for kind in kinds {
                assert!(report.count(*kind) > 0, "{what}, seed {seed}: {report}");
            }
        }
        assert_eq!(tried, 30, "{what}");
    }
}
