//! Broken variants of the core: each has one known flaw, and each must be refuted.
//!
//! Data only. An edit that no longer fits the core fails the build, so that no variant becomes the shipped core unseen.

/// One flawed core.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Name of its module.
    pub name: &'static str,
    /// The flaw, in words.
    pub flaw: &'static str,
    /// Texts of the core, each of which must stand there once, and what they become.
    pub edits: &'static [(&'static str, &'static str)],
    /// The property that it breaks.
    pub breaks: &'static str,
    /// Name of the bounds within which it does.
    pub within: &'static str,
}

/// All of them.
pub const VARIANTS: [Variant; 20] = [
    Variant {
        name: "belief_anchored_at_the_response",
        flaw: "a leader counts its time from the reply, not from the sending",
        edits: &[
            (
                "                term.renewed = sent;\n",
                "                term.renewed = Sent { moment: now.moment, wall: now.wall };\n",
            ),
            (
                "renewed: sent,\n",
                "renewed: Sent { moment: now.moment, wall: now.wall },\n",
            ),
        ],
        breaks: "I1",
        within: "cuts",
    },
    Variant {
        name: "conflict_taken_for_success",
        flaw: "a write that was refused counts as one that succeeded",
        edits: &[(
            "            Input::Refused(attempt) => {\n",
            "            Input::Refused(attempt) => {\n                if let Some(sent) = self.in_flight.get(&attempt).copied()\n                    && let Sight::Present { lease, .. } = self.sight.clone()\n                {\n                    self.in_flight.remove(&attempt);\n                    self.succeed(sent, lease, now, &mut actions);\n                }\n",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "belief_anchored_at_the_newest_twin",
        flaw: "a reply to any twin of a write counts from the sending of the newest",
        edits: &[(
            "                let sent = self.in_flight.remove(&attempt);\n                self.see(",
            "                let newest = self.in_flight.values().max_by_key(|sent| sent.moment).copied();\n                let sent = self.in_flight.remove(&attempt).and(newest);\n                self.see(",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "remote_clock_trusted",
        flaw: "a follower counts from the time that the holder wrote, by its own wall clock",
        edits: &[(
            "record => self.floor.max(now.moment + record.duration),",
            "record => {\n                        let age = record.renewed.map(|renewed| now.wall.duration_since(renewed).unsigned_abs());\n                        let since = Moment(now.moment.0.saturating_sub(age.unwrap_or_default()));\n                        self.floor.max(since + record.duration)\n                    }",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "label_restarts_the_expiry",
        flaw: "a follower counts from the last version, not from the last change of the record",
        edits: &[(
            "if known.record == lease.record && is_known => *since",
            "if known.version == lease.version && is_known => *since",
        )],
        breaks: "I5",
        within: "rest",
    },
    Variant {
        name: "deleted_taken_for_free",
        flaw: "a Lease that is gone is created at once, whoever held it",
        edits: &[(
            "            self.lose_sight(now);\n            // What was to be",
            "            // What was to be",
        )],
        breaks: "I4",
        within: "unmarked",
    },
    Variant {
        name: "rival_overlooked",
        flaw: "a leader opens its fence although another Pod is marked as that of the leader of a Lease that is gone",
        edits: &[(
            "let until = ends.max().unwrap_or(now.moment);",
            "let until = now.moment;\n                drop(ends);",
        )],
        breaks: "I4",
        within: "creation",
    },
    Variant {
        name: "opened_unmarked",
        flaw: "a leader opens its fence before its Pod is marked",
        edits: &[(
            "let clear = (!self.config.marks).then_some(now.moment);",
            "let clear = Some(now.moment);",
        )],
        breaks: "I4",
        within: "creation",
    },
    Variant {
        name: "epoch_counts_transitions",
        flaw: "the epoch is the transition counter, which a holder that comes back does not move",
        edits: &[
            (
                "version: lease.version,\n",
                "version: Version((transitions + 1).to_string()),\n",
            ),
            (
                "(None, Some(record)) => record.transitions.saturating_add(1),",
                "(None, Some(record)) => record.transitions.saturating_add(i32::from(record.holder != self.config.identity)),",
            ),
        ],
        breaks: "I2",
        within: "processes",
    },
    Variant {
        name: "namesake_taken_for_itself",
        flaw: "a record under its own name is its own, whoever wrote it",
        edits: &[(
            "lease.record.holder == self.config.identity && (same_pod || claimed)",
            "lease.record.holder == self.config.identity && (same_pod || claimed || true)",
        )],
        breaks: "I1",
        within: "namesakes",
    },
    Variant {
        name: "release_before_the_fence_closes",
        flaw: "the Lease is given back while the fence is open",
        edits: &[(
            "                    let acquired = term.acquired;\n                    actions.push(Action::Close);\n",
            "                    let acquired = term.acquired;\n",
        )],
        breaks: "I4",
        within: "releases",
    },
    Variant {
        name: "no_guard",
        flaw: "the fence ends when the Lease may be taken over",
        edits: &[
            (
                "let reach = self.config.reach();",
                "let reach = self.config.lease_duration;",
            ),
            (
                "term.renewed.moment + self.config.reach()",
                "term.renewed.moment + self.config.lease_duration",
            ),
        ],
        breaks: "I1",
        within: "clocks",
    },
    Variant {
        name: "stale_sighting_believed",
        flaw: "what is older than what is known is news",
        edits: &[(
            "Self::Present { lease: known, .. } => lease.version.precedes(&known.version),",
            "Self::Present { .. } => false,",
        )],
        breaks: "I6",
        within: "outsiders",
    },
    Variant {
        name: "another_holder_ignored",
        flaw: "a leader that sees another holder goes on",
        edits: &[(
            "                    None => {\n                        actions.push(Action::Close);\n                        self.exit(Exit::Lost, actions);\n                    }\n                    Some(lease) if leads",
            "                    None => {}\n                    Some(lease) if leads",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "taken_over_without_a_wait",
        flaw: "a follower takes the Lease over as soon as it sees it",
        edits: &[(
            "(self.floor + self.chance.of(spread), Way::Expiry)",
            "(at_once + self.chance.of(spread), Way::Expiry)",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "own_duration_trusted",
        flaw: "a follower waits for as long as it would be waited for itself",
        edits: &[(
            "record => self.floor.max(now.moment + record.duration),",
            "_ => self.floor.max(now.moment + self.config.lease_duration),",
        )],
        breaks: "I1",
        within: "durations",
    },
    Variant {
        name: "blind_write",
        flaw: "a write carries no version",
        edits: &[(
            "Action::Replace(attempt, lease.version.clone(), record)",
            "Action::Replace(attempt, Version(String::new()), record)",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "release_without_rest",
        flaw: "a drain that runs out of patience releases all the same",
        edits: &[(
            "                if matches!(self.role, Role::Draining(_)) {\n                    actions.push(Action::Close);\n                    self.exit(Exit::Unreleased, &mut actions);\n                }",
            "                if let Role::Draining(term) = &self.role {\n                    let acquired = term.acquired;\n                    actions.push(Action::Close);\n                    self.release(acquired, now);\n                }",
        )],
        breaks: "I4",
        within: "releases",
    },
    Variant {
        name: "resumed_by_reading",
        flaw: "a suspended leader that reads its own record opens the fence again",
        edits: &[(
            "        self.see(lease, now, actions);\n        self.reconsider(now, actions);\n",
            "        self.see(lease, now, actions);\n        self.reconsider(now, actions);\n        if let Role::Suspended(term) = &mut self.role {\n            term.renewed = Sent { moment: now.moment, wall: now.wall };\n            self.open(now, actions);\n        }\n",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "release_unseen",
        flaw: "a released Lease is waited out like a held one",
        edits: &[
            (
                "record if record.is_released() => Moment::default(),",
                "record if record.is_released() => now.moment + self.config.lease_duration * 2,",
            ),
            (
                "Sight::Present { lease, since } if lease.record.is_released() => match",
                "Sight::Present { lease, since } if lease.record.is_released() && false => match",
            ),
        ],
        breaks: "I3",
        within: "rest",
    },
];
