//! What a correct gateway and honest clients may do is accepted.

#![allow(clippy::unwrap_used)]

mod support;

use support::{alice_and_bob, judged, link, place, place_of, sent, simulator, single};
use throng_history::{Class, Event, Kind, What, judge};

#[test]
fn an_exchange_of_six_packets_keeps_every_promise() {
    let mut story = alice_and_bob();
    for n in 1..=300 {
        story.exchange(n);
    }
    let report = story.drained();
    assert!(report.is_clean(), "{report}");
    let totals = &report.totals;
    assert_eq!(
        (totals.confirmed, totals.owed, totals.notices),
        (300, 300, 300)
    );
    assert_eq!(report.loss_rate_below(), Some(0.01));
    assert!(report.to_string().contains("0 of 300: below 1.00e-2"));
}

#[test]
fn whatever_a_correct_system_goes_through_is_accepted() {
    let (mut owed, mut excused, mut notices) = (0, 0, 0);
    for seed in 1..=200 {
        let report = judged(&simulator::history(seed, 400));
        assert!(report.is_clean(), "seed {seed}: {report}");
        owed += report.totals.owed;
        excused += report.totals.excused;
        notices += report.totals.notices;
    }
    assert!(
        owed > 5000 && notices > 1000,
        "{owed} owed, {notices} notices"
    );
    assert!(excused > 0 && excused < owed / 2, "{excused} of {owed}");
}

#[test]
fn a_message_whose_outcome_nobody_knows_may_come_or_not() {
    let (here, lost) = (single("alice", "m1", "bob"), single("alice", "m2", "bob"));
    let mut story = alice_and_bob();
    for sent in [&here, &lost] {
        let what = What::Unknown { sent: sent.clone() };
        story.send(sent).add(what);
    }
    let report = story.get("bob", 2, place(1), "id1", &here).drained();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.totals.unknown, report.totals.owed), (2, 0));
    assert_eq!(report.loss_rate_below(), None);
}

#[test]
fn a_refused_message_may_be_sent_again_and_then_come() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).refuse(&sent);
    story.send(&sent).confirm(&sent, "id1");
    let report = story.get("bob", 2, place(1), "id1", &sent).drained();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn an_entry_may_come_again_on_another_connection_and_the_application_gets_it_once() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).confirm(&sent, "id1");
    story.get("bob", 2, place(1), "id1", &sent);
    story.close("bob", 2).open("bob", 3, None);
    let report = story.receive("bob", 3, place(1), "id1").drained();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn what_a_told_gap_took_is_counted_and_proves_nothing() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).confirm(&sent, "id1");
    let report = story.gap("bob", 2).drained();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.totals.owed, report.totals.excused), (1, 1));
    assert_eq!(report.loss_rate_below(), None);
}

#[test]
fn a_told_gap_excuses_every_place_up_to_its_head_and_none_behind_it() {
    let story = |is_told: bool, places: &[u64]| {
        let mut story = alice_and_bob();
        story.exchange(1);
        if is_told {
            story.gap("bob", 2);
        }
        for &seq in places {
            story.receive("bob", 2, place(seq), &format!("id{seq}"));
        }
        story.kinds()
    };
    // The first one that comes would be excused by the word alone.
    assert_eq!(story(true, &[2, 5, 8, 10]), []);
    assert_eq!(story(false, &[2, 5, 8, 10]), [Kind::Hole]);
    assert_eq!(story(true, &[2, 5, 8, 11]), [Kind::Hole]);
}

#[test]
fn its_own_word_to_a_group_may_be_acknowledged_before_it_is_confirmed() {
    let members = ["alice", "bob"].map(str::to_owned).to_vec();
    let group = "team".to_owned();
    let to_team = sent(Class::Group, "alice", "m1", "team");
    let mut story = alice_and_bob();
    story.add(What::Group { group, members }).send(&to_team);
    story.receive("alice", 1, place(1), "id1");
    story.ack("alice", 1, "id1").confirm(&to_team, "id1");
    story.answer("alice", 1, "id1");
    let report = story.get("bob", 2, place(1), "id1", &to_team).drained();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_cursor_acknowledges_as_a_15_does() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).confirm(&sent, "id1");
    story.get("bob", 2, place(1), "id1", &sent);
    story.close("bob", 2).open("bob", 3, Some(place(1)));
    let report = story.notify("alice", 1, place(1), "id1", "bob").drained();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn the_connection_that_a_message_to_a_group_came_from_does_not_get_it() {
    let members = ["alice", "bob"].map(str::to_owned).to_vec();
    let group = "team".to_owned();
    let to_team = sent(Class::Group, "alice", "m1", "team");
    let to_alice = single("bob", "m2", "alice");
    let mut story = alice_and_bob();
    story.exchange(1).add(What::Group { group, members });
    story.send(&to_team).confirm(&to_team, "id2");
    story.get("bob", 2, place(2), "id2", &to_team);
    story.send(&to_alice).confirm(&to_alice, "id3");
    let report = story.get("alice", 1, place(3), "id3", &to_alice).drained();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn who_joins_or_leaves_meanwhile_may_get_it_or_not() {
    let to_team = sent(Class::Group, "alice", "m1", "team");
    let members = |names: &[&str]| What::Group {
        group: "team".to_owned(),
        members: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut story = alice_and_bob();
    story.open("carol", 3, None).open("dave", 4, None);
    story
        .add(members(&["alice", "bob", "carol"]))
        .send(&to_team);
    story.add(members(&["alice", "bob", "dave"]));
    story.confirm(&to_team, "id1");
    story.get("bob", 2, place(1), "id1", &to_team);
    let report = story.get("dave", 4, place(1), "id1", &to_team).drained();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.totals.owed, 1, "to bob, who was in it all the time");
}

#[test]
fn what_comes_long_after_a_fault_is_in_time_while_it_lasts() {
    let sent = single("alice", "m1", "bob");
    let fault = || "the store is stopped".to_owned();
    let mut story = alice_and_bob();
    story.send(&sent).confirm(&sent, "id1").pass_secs(60);
    story
        .add(What::FaultStart { fault: fault() })
        .pass_secs(500);
    story.add(What::FaultStop { fault: fault() }).pass_secs(80);
    let report = story.get("bob", 2, place(1), "id1", &sent).drained();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.totals.faults, 1);
}

#[test]
fn a_device_that_is_not_connected_at_the_end_is_owed_nothing() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).confirm(&sent, "id1");
    let report = story.close("bob", 2).drained();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.totals.owed, 0);
}

#[test]
fn an_acknowledgement_by_somebody_else_is_answered_404_and_harms_nobody() {
    let mut story = alice_and_bob();
    story.exchange(1).open("eve", 3, None);
    story.ack("eve", 3, "id1").add(What::Answered {
        on: link("eve", 3),
        message_id: "id1".to_owned(),
        status: 404,
    });
    let report = story.drained();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.totals.acks_unknown, 1);
}

#[test]
fn a_new_epoch_that_is_told_may_count_anew() {
    let sent = single("alice", "m9", "bob");
    let mut story = alice_and_bob();
    story.exchange(1).gap("bob", 2);
    story.send(&sent).confirm(&sent, "id9");
    let report = story
        .get("bob", 2, place_of("e2", 1), "id9", &sent)
        .drained();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_history_is_the_same_read_from_text_and_what_is_no_event_is_named_by_its_line() {
    let events = simulator::history(7, 300);
    let mut text = Vec::new();
    for event in &events {
        event.write(&mut text).unwrap();
        assert_eq!(
            &serde_json::from_slice::<Event>(text.split(|b| *b == b'\n').rev().nth(1).unwrap())
                .unwrap(),
            event
        );
    }
    assert_eq!(judge(&text[..]).unwrap(), judged(&events));
    let error = judge(&b"{\"at\":1,\"what\":{\"heal\":{}}}\n\n{\"at\":2,\"wh"[..]).unwrap_err();
    assert!(
        error.to_string().starts_with("line 3 is no event"),
        "{error}"
    );
}

#[test]
fn a_store_that_has_lost_a_message_may_take_it_for_a_new_one() {
    let sent = single("alice", "m1", "bob");
    let mut story = alice_and_bob();
    story.send(&sent).get("bob", 2, place(1), "id1", &sent);
    story.add(What::Unknown { sent: sent.clone() });
    story.add(What::StoreLost {});
    story.gap("bob", 2).send(&sent);
    story.get("bob", 2, place_of("e2", 1), "id2", &sent);
    story.confirm(&sent, "id2");
    assert_eq!(story.kinds(), []);
}
