//! Broken variants of the core: each has one known flaw, and each must be refuted.
//!
//! Data only. An edit that no longer matches the core fails the build, so that no variant silently
//! equals the shipped core.

/// One flawed core.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// Name of its module.
    pub name: &'static str,
    /// The flaw in words.
    pub flaw: &'static str,
    /// What is changed in the shipped core.
    pub edits: &'static [Edit],
    /// The invariant that it violates.
    pub breaks: &'static str,
    /// Name of the bounds within which a search must find that.
    pub within: &'static str,
}

/// One change to one file of the core.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// The file, within `src/leader/candidate`.
    pub file: &'static str,
    /// A text that occurs exactly once in that file.
    pub find: &'static str,
    /// What it becomes.
    pub replacement: &'static str,
}

const fn edit(file: &'static str, find: &'static str, replacement: &'static str) -> Edit {
    Edit {
        file,
        find,
        replacement,
    }
}

/// All variants.
pub const VARIANTS: [Variant; 20] = [
    Variant {
        name: "term_counted_from_the_reply",
        flaw: "a leader counts its term from the reply, not from the sending",
        edits: &[
            edit(
                "writes.rs",
                "                term.renewed = sent;\n",
                "                term.renewed = SentAt { moment: now.moment, wall: now.wall };\n",
            ),
            edit(
                "writes.rs",
                "renewed: sent,\n",
                "renewed: SentAt { moment: now.moment, wall: now.wall },\n",
            ),
        ],
        breaks: "I1",
        within: "partitions",
    },
    Variant {
        name: "conflict_counted_as_success",
        flaw: "a conflicting write counts as one that succeeded",
        edits: &[edit(
            "writes.rs",
            "        if self.in_flight.remove(&id).is_some() {\n            self.must_read = true;\n",
            "        if let Some(sent) = self.in_flight.get(&id).copied()\n            && let Observed::Present { lease, .. } = self.observed.clone()\n        {\n            self.in_flight.remove(&id);\n            self.write_succeeded(sent, lease, now, actions);\n        }\n        if self.in_flight.remove(&id).is_some() {\n            self.must_read = true;\n",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "term_counted_from_the_newest_hedge",
        flaw: "a reply to any hedge of a write counts from the sending of the newest",
        edits: &[edit(
            "writes.rs",
            "        let sent = self.in_flight.remove(&id);\n        self.observe(",
            "        let newest = self.in_flight.values().max_by_key(|sent| sent.moment).copied();\n        let sent = self.in_flight.remove(&id).and(newest);\n        self.observe(",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "remote_clock_trusted",
        flaw: "a follower counts from the holder's renew time, by its own wall clock",
        edits: &[edit(
            "observation.rs",
            "record => self.holder_expiry.max(now.moment + record.duration),",
            "record => {\n                        let age = record.renewed.map(|renewed| now.wall.duration_since(renewed).unsigned_abs());\n                        let since = Moment(now.moment.0.saturating_sub(age.unwrap_or_default()));\n                        self.holder_expiry.max(since + record.duration)\n                    }",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "label_restarts_the_expiry",
        flaw: "a follower counts from the last new version, not from the last change of the record",
        edits: &[edit(
            "observation.rs",
            "if known.record == lease.record && is_known => *since",
            "if known.version == lease.version && is_known => *since",
        )],
        breaks: "I5",
        within: "recovery",
    },
    Variant {
        name: "deleted_lease_taken_at_once",
        flaw: "a deleted Lease is created again without waiting for its holder",
        edits: &[edit(
            "observation.rs",
            "            self.note_deletion(now);\n            // The Lease that a takeover",
            "            // The Lease that a takeover",
        )],
        breaks: "I4",
        within: "unmarked",
    },
    Variant {
        name: "rival_ignored",
        flaw: "a leader opens its fence although another Pod is marked as the leader of a deleted Lease",
        edits: &[edit(
            "role.rs",
            "let until = ends.max().unwrap_or(now.moment);",
            "let until = now.moment;\n        drop(ends);",
        )],
        breaks: "I4",
        within: "creation",
    },
    Variant {
        name: "fence_opened_before_the_mark",
        flaw: "a leader opens its fence before its Pod is marked",
        edits: &[edit(
            "writes.rs",
            "let safe_at = (!self.config.marks).then_some(now.moment);",
            "let safe_at = Some(now.moment);",
        )],
        breaks: "I4",
        within: "creation",
    },
    Variant {
        name: "epoch_counts_transitions",
        flaw: "the epoch is the transition counter, which a returning holder does not increment",
        edits: &[
            edit(
                "writes.rs",
                "version: lease.version,\n",
                "version: super::super::lease::ResourceVersion((transitions + 1).to_string()),\n",
            ),
            edit(
                "writes.rs",
                "(None, Some(record)) => record.transitions.saturating_add(1),",
                "(None, Some(record)) => record.transitions.saturating_add(i32::from(record.holder != self.config.identity)),",
            ),
        ],
        breaks: "I2",
        within: "processes",
    },
    Variant {
        name: "namesake_trusted_as_self",
        flaw: "a candidate takes any record under its own name for its own",
        edits: &[edit(
            "observation.rs",
            "lease.record.holder == self.config.identity && (same_pod || claimed)",
            "lease.record.holder == self.config.identity && (same_pod || claimed || true)",
        )],
        breaks: "I1",
        within: "namesakes",
    },
    Variant {
        name: "release_before_the_fence_closes",
        flaw: "the Lease is released while the fence is open",
        edits: &[edit(
            "role.rs",
            "            let acquired = term.acquired;\n            actions.push(Action::CloseFence);\n",
            "            let acquired = term.acquired;\n",
        )],
        breaks: "I4",
        within: "releases",
    },
    Variant {
        name: "no_guard",
        flaw: "the fence ends only when the Lease may be taken over",
        edits: &[
            edit(
                "role.rs",
                "let reach = self.config.reach();",
                "let reach = self.config.lease_duration;",
            ),
            edit(
                "role.rs",
                "term.renewed.moment + self.config.reach()",
                "term.renewed.moment + self.config.lease_duration",
            ),
        ],
        breaks: "I1",
        within: "clocks",
    },
    Variant {
        name: "stale_event_believed",
        flaw: "an event that is older than what is known counts as news",
        edits: &[edit(
            "observation.rs",
            "Self::Present { lease: known, .. } => lease.version.precedes(&known.version),",
            "Self::Present { .. } => false,",
        )],
        breaks: "I6",
        within: "edits",
    },
    Variant {
        name: "other_holder_ignored",
        flaw: "a leader that sees another holder continues",
        edits: &[edit(
            "role.rs",
            "                    None => {\n                        actions.push(Action::CloseFence);\n                        self.exit(Exit::Lost, actions);\n                    }\n                    Some(lease) if leads",
            "                    None => {}\n                    Some(lease) if leads",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "takeover_without_a_wait",
        flaw: "a follower takes the Lease over without waiting for its expiry",
        edits: &[edit(
            "observation.rs",
            "let expiry = self.holder_expiry + self.expiry_jitter.of(spread);",
            "let expiry = at_once + self.expiry_jitter.of(spread);",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "own_duration_trusted",
        flaw: "a follower waits for its own lease duration, not for the recorded one",
        edits: &[edit(
            "observation.rs",
            "record => self.holder_expiry.max(now.moment + record.duration),",
            "_ => self.holder_expiry.max(now.moment + self.config.lease_duration),",
        )],
        breaks: "I1",
        within: "durations",
    },
    Variant {
        name: "unconditional_write",
        flaw: "a write is not conditional on a version",
        edits: &[edit(
            "writes.rs",
            "Action::Update(id, lease.version.clone(), record)",
            "Action::Update(id, super::super::lease::ResourceVersion(String::new()), record)",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "release_after_a_drain_timeout",
        flaw: "a drain that times out releases the Lease",
        edits: &[edit(
            "mod.rs",
            "Input::DrainTimedOut => self.on_drain_timed_out(&mut actions),",
            "Input::DrainTimedOut => self.on_drained(now, &mut actions),",
        )],
        breaks: "I4",
        within: "releases",
    },
    Variant {
        name: "fence_reopened_by_a_read",
        flaw: "a suspended leader that reads its own record reopens its fence",
        edits: &[edit(
            "observation.rs",
            "        self.observe(lease, now, actions);\n        self.abandon_takeover_unless_free(now, actions);\n",
            "        self.observe(lease, now, actions);\n        self.abandon_takeover_unless_free(now, actions);\n        if let Role::Suspended(term) = &mut self.role {\n            term.renewed = super::writes::SentAt { moment: now.moment, wall: now.wall };\n            self.open_fence(now, actions);\n        }\n",
        )],
        breaks: "I1",
        within: "network",
    },
    Variant {
        name: "release_ignored",
        flaw: "a released Lease is waited out like a held one",
        edits: &[
            edit(
                "observation.rs",
                "record if record.is_released() => Moment::default(),",
                "record if record.is_released() => now.moment + self.config.lease_duration * 2,",
            ),
            edit(
                "observation.rs",
                "Observed::Present { lease, since } if lease.record.is_released() => {",
                "Observed::Present { lease, since } if lease.record.is_released() && false => {",
            ),
        ],
        breaks: "I3",
        within: "recovery",
    },
];
