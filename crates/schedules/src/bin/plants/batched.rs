//! A bug for each rule of the policy Batched, as `docs/protocol-models.md` numbers them.

use super::{By, Plant};

/// The list.
pub(crate) const PLANTS: &[Plant] = &[
    // Rule 2: mark, look, stamp, record, store, unmark.
    Plant {
        name: "a record is stamped before its lane is marked",
        file: "op/commit.rs",
        changes: &[(
            "    lane.enter();\n    let epoch = engine.epochs.present();\n",
            "    let epoch = engine.epochs.present();\n    lane.enter();\n",
        )],
        by: By::BatchedScenario("rounds-of-another"),
    },
    Plant {
        name: "lanes are not marked",
        file: "lane/board.rs",
        changes: &[
            (
                "self.own.mark.store(mark + 1, Ordering::SeqCst);",
                "self.own.mark.store(mark, Ordering::SeqCst);",
            ),
            (
                "self.own.mark.store(mark + 1, Ordering::Release);",
                "self.own.mark.store(mark, Ordering::Release);",
            ),
        ],
        by: By::Batched,
    },
    Plant {
        name: "a lane is unmarked before the effects are stored",
        file: "op/commit.rs",
        changes: &[(
            "    effects.apply(space, lane);\n    lane.leave();\n",
            "    lane.leave();\n    effects.apply(space, lane);\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "effects are stored before their records are durable",
        file: "op/commit.rs",
        changes: &[(
            "    m.fence();\n    effects.apply(space, lane);\n",
            "    effects.apply(space, lane);\n    m.fence();\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "a record is not durable when its operation returns",
        file: "op/commit.rs",
        changes: &[(
            "    m.fence();\n    effects.apply(space, lane);\n",
            "    effects.apply(space, lane);\n",
        )],
        by: By::Batched,
    },
    // Rule 3: quiescence.
    Plant {
        name: "a round does not wait for who is inside",
        file: "op/synchronizer.rs",
        changes: &[(
            "self.boards.iter().all(|board| has_left(board, waiting))",
            "self.boards.iter().all(|board| board.inside().is_some() || has_left(board, waiting))",
        )],
        by: By::Batched,
    },
    Plant {
        name: "a round does not see lanes that were claimed behind the first one",
        file: "op/synchronizer.rs",
        changes: &[(
            "        lanes.boards(&mut self.boards);\n",
            "        if self.boards.is_empty() {\n            lanes.boards(&mut self.boards);\n        }\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "two rounds run at once",
        file: "op/synchronizer.rs",
        changes: &[(
            "let Some(mut round) = self.begin(waiting) else { return Ok(Outcome::Stalled) };",
            "if self.begin(waiting).is_none() { return Ok(Outcome::Stalled) }\n        \
             let mut round = Round::default();",
        )],
        by: By::Batched,
    },
    Plant {
        name: "a round that was stalled is forgotten",
        file: "op/synchronizer.rs",
        changes: &[(
            "while let Some(epoch) = round.ending {",
            "while let Some(epoch) = round.ending.take().filter(|epoch| *epoch == 0) {",
        )],
        by: By::Batched,
    },
    // Rule 4: effects, fence, D, fence, release.
    Plant {
        name: "a round does not flush bits",
        file: "op/changes.rs",
        changes: &[(
            "        self.single.store_slot(m);\n        \
             lines.stored(line_of(self.bit.place()));\n        \
             lines.stored(self.single.slot_line());\n",
            "        self.single.store_slot(m);\n        \
             lines.stored(self.single.slot_line());\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "a round does not flush slots",
        file: "op/changes.rs",
        changes: &[(
            "        self.was_live = self.bit.store(m, false);\n        \
             lines.stored(line_of(self.bit.place()));\n        \
             lines.stored(self.single.slot_line());\n",
            "        self.was_live = self.bit.store(m, false);\n        \
             lines.stored(line_of(self.bit.place()));\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "a round does not flush log entries",
        file: "op/changes.rs",
        changes: &[(
            "    lines.stored(line_of(append.place()));\n    lines.stored(single.slot_line());\n",
            "    lines.stored(single.slot_line());\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "a round says that an epoch is durable in the fence of its effects",
        file: "op/synchronizer.rs",
        changes: &[(
            "        m.fence();\n        state::set_durable_epoch(m, epoch)?;\n",
            "        state::set_durable_epoch(m, epoch)?;\n",
        )],
        by: By::BatchedScenario("rounds-at-once"),
    },
    Plant {
        name: "memory and places are released before the durable epoch is durable",
        file: "op/synchronizer.rs",
        changes: &[(
            "        m.fence();\n        state::set_durable_epoch(m, epoch)?;\n",
            "        m.fence();\n        epochs.set_durable(epoch);\n        \
             state::set_durable_epoch(m, epoch)?;\n",
        )],
        by: By::Batched,
    },
    // Rule 5: reuse when durable.
    Plant {
        name: "memory that was freed is used at once",
        file: "op/engine.rs",
        changes: &[(
            "Policy::Batched => epoch,",
            "Policy::Batched => return self.reuse(state, block),",
        )],
        by: By::Batched,
    },
    Plant {
        name: "memory is used again when the epoch of its free has ended",
        file: "op/engine.rs",
        changes: &[(
            "Policy::Batched => self.epochs.durable(),",
            "Policy::Batched => self.epochs.present() - 1,",
        )],
        by: By::BatchedScenario("large-across-rounds"),
    },
    Plant {
        name: "memory waits for the epoch before that of its free",
        file: "op/commit.rs",
        changes: &[(
            "    effects.finish(space);\n    Ok(epoch)\n",
            "    effects.finish(space);\n    Ok(epoch - 1)\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "a guard keeps what was freed in its epoch, but not in the one before",
        file: "op/engine.rs",
        changes: &[("oldest.saturating_sub(2)", "oldest.saturating_sub(1)")],
        by: By::Test("crash", "stalled::"),
    },
    // Rule 6: recovery.
    Plant {
        name: "recovery redoes frees first",
        file: "recovery/replay.rs",
        changes: &[
            (
                ".filter(|(_, record)| !record.op.is_alloc())",
                ".filter(|(_, record)| (record.op.is_alloc()))",
            ),
            (
                ".filter(|(_, record)| record.op.is_alloc())",
                ".filter(|(_, record)| !record.op.is_alloc())",
            ),
        ],
        by: By::Batched,
    },
    Plant {
        name: "recovery keeps the durable epoch",
        file: "recovery/replay.rs",
        changes: &[(
            "(state.durable + EPOCHS_IN_FLIGHT).min(EPOCH_MAX)",
            "(state.durable * EPOCHS_IN_FLIGHT / 2).min(EPOCH_MAX)",
        )],
        by: By::Batched,
    },
    Plant {
        name: "recovery moves the durable epoch by one",
        file: "recovery/replay.rs",
        changes: &[(
            "(state.durable + EPOCHS_IN_FLIGHT).min(EPOCH_MAX)",
            "(state.durable + EPOCHS_IN_FLIGHT / 2).min(EPOCH_MAX)",
        )],
        by: By::Batched,
    },
    Plant {
        name: "recovery zeroes the rings before it moves the durable epoch",
        file: "recovery/replay.rs",
        changes: &[(
            "    let durable = end_epochs(m, state)?;\n    lane::zero_rings(m, geometry, &lanes)?;\n",
            "    lane::zero_rings(m, geometry, &lanes)?;\n    let durable = end_epochs(m, state)?;\n",
        )],
        by: By::Batched,
    },
    Plant {
        name: "recovery moves the durable epoch in the fence of the effects",
        file: "recovery/replay.rs",
        changes: &[(
            "    let applied = replay.apply_all(&records);\n",
            "    let applied = replay.apply_all(&records);\n    \
             if state.policy == Policy::Batched { end_epochs(m, state)?; }\n",
        )],
        by: By::Batched,
    },
    // Rule 8: records are valid by content, and their places are needed until they are durable.
    Plant {
        name: "a full ring has room",
        file: "lane/window.rs",
        changes: &[(
            "self.look(durable());\n            head <= self.full",
            "self.look(durable());\n            head > 0",
        )],
        by: By::Batched,
    },
    Plant {
        name: "places are free when the epoch behind theirs begins",
        file: "lane/window.rs",
        changes: &[(
            "        } else {\n            self.older.start\n",
            "        } else {\n            self.newest.start\n",
        )],
        by: By::Unit("lane::window"),
    },
    // Rule 9: groups count as a whole.
    Plant {
        name: "records of a group count one by one",
        file: "lane/replay.rs",
        changes: &[(
            "let (record, its_tag) = found[(place + usize::from(index)) % found.len()]?;",
            "let next = found[(place + usize::from(index)) % found.len()];\n        \
             let Some((record, its_tag)) = next else { break };",
        )],
        by: By::BatchedScenario("publish"),
    },
    // Rule 15: closing synchronizes the present epoch, too.
    Plant {
        name: "closing leaves the present epoch",
        file: "op/engine.rs",
        changes: &[(
            "            if self.policy == Policy::Batched\n                \
             && self.synchronize(Patience::For(CLOSE))?",
            "            if self.policy == Policy::Batched\n                \
             && self.epochs.durable() == u64::MAX\n                \
             && self.synchronize(Patience::For(CLOSE))?",
        )],
        by: By::Batched,
    },
    // Rule 16: one policy at a time.
    Plant {
        name: "the rings of a heap that was closed stay, also if the policy is another",
        file: "recovery/replay.rs",
        changes: &[(
            "    lane::zero_rings(m, geometry, &lanes)?;\n",
            "    if !left.is_closed {\n        lane::zero_rings(m, geometry, &lanes)?;\n    }\n",
        )],
        by: By::Batched,
    },
    // Rule 17: a stalled thread stops the durable epoch, and nothing else.
    Plant {
        name: "a full lane is not exchanged",
        file: "op/commit.rs",
        changes: &[(
            "Outcome::Stalled => engine.exchange_lane(claim, records),",
            "Outcome::Stalled => Ok(()),",
        )],
        by: By::Test("crash", "stalled::"),
    },
    // Rule 20: recovery makes durable what it read.
    Plant {
        name: "recovery builds on what may not be durable",
        file: "recovery/replay.rs",
        changes: &[(
            "    if !left.is_closed {\n        write_back(",
            "    if left.is_closed {\n        write_back(",
        )],
        by: By::BatchedExplorer("killed in 1 operation"),
    },
];
