//! The bugs that any heap could have.

use super::{By, Plant};

/// The list.
pub(crate) const PLANTS: &[Plant] = &[
    Plant {
        name: "an allocation does not keep its slot",
        file: "op/alloc.rs",
        changes: &[(
            "let _owned = engine.slot_locks.lock(slot);\n    // Under the lock",
            "drop(engine.slot_locks.lock(slot));\n    // Under the lock",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a free does not keep its slot",
        file: "op/free.rs",
        changes: &[(
            "let _owned = engine.slot_locks.lock(slot);\n    // Under the lock",
            "drop(engine.slot_locks.lock(slot));\n    // Under the lock",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a publish does not keep its slots",
        file: "op/group.rs",
        changes: &[(
            "engine.slot_locks.lock_all(&owned, &mut locks);\n",
            "engine.slot_locks.lock_all(&owned, &mut locks);\n        locks.clear();\n",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a publish locks its slots in its own order",
        file: "op/slot_locks.rs",
        changes: &[
            ("    filled: u16,\n}", "    filled: u16,\n    first: usize,\n}"),
            (
                "        self.filled |= 1 << word;\n",
                "        if self.filled == 0 {\n            self.first = stripe;\n        }\n        \
                 self.filled |= 1 << word;\n",
            ),
            (
                "owned.extend(stripes.iter()",
                "let mut order: Vec<usize> = stripes.iter().collect();\n        \
                 order.sort_by_key(|stripe| *stripe != stripes.first);\n        \
                 owned.extend(order.into_iter()",
            ),
        ],
        by: By::Schedules,
    },
    Plant {
        name: "a slot is not read again",
        file: "core/open_heap.rs",
        changes: &[(
            "Some(now) if now == block =>",
            "Some(now) if now == block || now != block =>",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a publish clears bits before it stores slots",
        file: "op/changes.rs",
        changes: &[(
            "        for in_new in [true, false] {\n",
            "        for freed in &*self.freed {\n            \
                 if let Block::Small(block) = &freed.block {\n                \
                     block.live_bit().store(m, false);\n            \
                 }\n        \
             }\n        \
             for in_new in [true, false] {\n",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a cell in a freed block is damage",
        file: "recovery/replay.rs",
        changes: &[(
            "self.geometry.page_at(record.slot).is_some() && record.slot.is_multiple_of(8)",
            "false",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a root is looked up without the lock under which it is made",
        file: "root/obtain.rs",
        changes: &[(
            "    let _roots = lock(&core.roots);\n    let Found",
            "    drop(lock(&core.roots));\n    let Found",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a block is reused before its free is durable",
        file: "op/free.rs",
        changes: &[(
            "    let epoch = commit(engine, &mut state.claim, &mut free)?;\n    \
             Ok(Unlinked { block: Block::Small(small), was_live: free.was_live, epoch })",
            "    let early = !engine.is_pinned();\n    \
             if early { engine.recycle(state.arena, Block::Small(small)); }\n    \
             let epoch = commit(engine, &mut state.claim, &mut free)?;\n    \
             Ok(Unlinked { block: Block::Small(small), was_live: free.was_live && !early, epoch })",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "an extent is reused before its free is durable",
        file: "op/free.rs",
        changes: &[(
            "    let epoch = commit(engine, &mut state.claim, &mut free)?;\n    \
             Ok(Unlinked { block: Block::Large(block), was_live: true, epoch })",
            "    let early = !engine.is_pinned();\n    \
             if early { engine.recycle(state.arena, Block::Large(block)); }\n    \
             let epoch = commit(engine, &mut state.claim, &mut free)?;\n    \
             Ok(Unlinked { block: Block::Large(block), was_live: !early, epoch })",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a bin gives its last block back before it asks for others",
        file: "tcache/mod.rs",
        changes: &[("    (limit - want).max(1)\n", "    limit - want\n")],
        by: By::Scenario("one-at-hand-one-arena"),
    },
    Plant {
        name: "what was stored without flushes is not synchronized",
        file: "inspect/serve.rs",
        changes: &[("found.needed_sync() && !m.needs_sync()", "found.needed_sync() && m.forked()")],
        by: By::Unit("what_was_stored_without_flushes"),
    },
    Plant {
        name: "a free does not look for guards",
        file: "op/engine.rs",
        changes: &[(
            "Policy::Eager if !self.pins.were_used() => return",
            "Policy::Eager if self.id > 0 => return",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "memory is used again whatever guards live",
        file: "op/engine.rs",
        changes: &[(
            "self.pins.oldest().map_or(u64::MAX, |oldest| oldest.saturating_sub(2))",
            "self.pins.oldest().map_or(u64::MAX, |_| u64::MAX)",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "a chunk is dropped while an entry is written to it",
        file: "book/chain.rs",
        changes: &[(
            "self.live == 0 && self.needed == 0 && self.in_flight == 0",
            "self.live == 0 && self.needed == 0",
        )],
        by: By::Schedules,
    },
    Plant {
        name: "the children of a freed block are not owned",
        file: "op/group.rs",
        changes: &[("if !owned.contains(&wanted) {", "if !owned.contains(&named) {")],
        by: By::Scenario("typed-parent-replaced"),
    },
    Plant {
        name: "an allocation looks for its slot's block before it has the slot",
        file: "op/alloc.rs",
        changes: &[(
            "let _owned = engine.slot_locks.lock(slot);\n    \
             // Under the lock: who frees a typed block holds those of its slots.\n    \
             state.homes.check(engine, slot)?;",
            "state.homes.check(engine, slot)?;\n    let _owned = engine.slot_locks.lock(slot);",
        )],
        by: By::Scenario("typed-parent-freed"),
    },
    Plant {
        name: "a session takes any block for one that stays",
        file: "op/home.rs",
        changes: &[("if engine.root_blocks.contains(around.start) {", "if !around.is_empty() {")],
        by: By::Unit("op::home"),
    },
    Plant {
        name: "a session does not hear that a root was removed",
        file: "op/home.rs",
        changes: &[(
            "if self.removed == engine.root_blocks.removed()\n            && (later",
            "if true\n            && (later",
        )],
        by: By::Unit("op::home"),
    },
    Plant {
        name: "a log that is copied gives its chunks back before the switch",
        file: "book/gc.rs",
        changes: &[
            (
                "        self.area.set_link(m, Link::Root(log.id), fresh[0]);",
                "        self.pool.give(log.chunks.iter().map(|chunk| chunk.index));\n        \
                 self.area.set_link(m, Link::Root(log.id), fresh[0]);",
            ),
            ("        self.pool.give(old.iter().map(|chunk| chunk.index));", "        drop(old);"),
        ],
        by: By::Scenario("log-collection-two-logs"),
    },
    Plant {
        name: "a group that lacks its fifth record is whole",
        file: "lane/replay.rs",
        changes: &[(
            "let (record, its_tag) = found[(place + usize::from(index)) % found.len()]?;",
            "let next = found[(place + usize::from(index)) % found.len()];\n        \
             if next.is_none() && index == 4 { break; }\n        \
             let (record, its_tag) = next?;",
        )],
        by: By::Explorer("groups of five"),
    },
    Plant {
        name: "a version that begins again is an old one",
        file: "layout/slot.rs",
        changes: &[(
            "ahead != 0 && ahead < 1 << (VERSION_BITS - 1)",
            "ahead != 0 && self.0 > other.0",
        )],
        by: By::Explorer("1 operation, nesting 1"),
    },
    Plant {
        name: "a slot in a new large block is not redone",
        file: "recovery/replay.rs",
        changes: &[(
            "|| self.is_in_flight(record.slot);",
            "|| record.op.is_large() && self.is_in_flight(record.slot);",
        )],
        by: By::Explorer("typed blocks"),
    },
    Plant {
        name: "what was torn and could not be copied away stays",
        file: "recovery/replay.rs",
        changes: &[(
            "    if book.stats().torn > 0 {\n        book.scrub_torn(m);",
            "    if book.stats().torn > 1 << 20 {\n        book.scrub_torn(m);",
        )],
        by: By::Explorer("1 operation, recovery on a full disk"),
    },
    Plant {
        name: "the flag of a sync goes before the sync",
        file: "op/gate.rs",
        changes: &[(
            "        if let Err(error) = m.sync() {\n",
            "        state::set_clean(m, clean)?;\n        if let Err(error) = m.sync() {\n",
        )],
        by: By::Unit("op::gate"),
    },
    Plant {
        name: "the filter of roots clears a bit that others share",
        file: "op/root_blocks.rs",
        changes: &[("!blocks.keys().any(|other| place(*other) == (word, bit))", "bit != 0")],
        by: By::Unit("op::root_blocks"),
    },
    Plant {
        name: "the youngest guard counts",
        file: "op/pins.rs",
        changes: &[(
            "made.flatten().filter_map(|pin| pin.epoch()).min()",
            "made.flatten().filter_map(|pin| pin.epoch()).max()",
        )],
        by: By::Unit("op::pins"),
    },
    Plant {
        name: "a session's guards count as its youngest",
        file: "op/pins.rs",
        changes: &[(
            "_ => Some(word + 1),",
            "_ => Some(epoch << COUNT_BITS | (word & COUNT) + 1),",
        )],
        by: By::Unit("op::pins"),
    },
    Plant {
        name: "memory does not wait for the last epoch",
        file: "op/limbo.rs",
        changes: &[
            ("|bag| bag.newest <= safe", "|bag| bag.newest <= safe + 1"),
            ("if self.newest <= safe {", "if self.newest <= safe + 1 {"),
        ],
        by: By::Unit("op::limbo"),
    },
    Plant {
        name: "who finds no room does not look at what waits for guards",
        file: "op/engine.rs",
        changes: &[(
            "        self.empty_limbo(state)?;\n        state.cache.drain",
            "        state.cache.drain",
        )],
        by: By::Unit("op::limbo"),
    },
    Plant {
        name: "the place behind a slab's last block is a block",
        file: "slab/descriptor.rs",
        changes: &[(
            "exact_index_of(offset.checked_sub(self.base)?)?;\n        (block < self.blocks())",
            "exact_index_of(offset.checked_sub(self.base)?)?;\n        (block <= self.blocks())",
        )],
        by: By::Unit("slab::descriptor"),
    },
    Plant {
        name: "a queue between arenas that is too long is forgotten",
        file: "arena/mod.rs",
        changes: &[(
            "            self.drain_remote(space, &mut lock(&self.state));\n        }\n    }\n",
            "            lock(&self.remote).clear();\n        }\n    }\n",
        )],
        by: By::Test("heap", "memory::"),
    },
    Plant {
        name: "slots that lead to new blocks are stored before those in them",
        file: "op/changes.rs",
        changes: &[("for in_new in [true, false] {", "for in_new in [false, true] {")],
        by: By::Test("counts", "persist_count::"),
    },
    Plant {
        name: "the slots of a crashed heap are not looked at",
        file: "inspect/refusal.rs",
        changes: &[(
            "Clean::Unwritten => root_table::examine_slots(&core, tell)?,",
            "Clean::Unwritten => {}",
        )],
        by: By::Test("heap", "damage::"),
    },
    Plant {
        name: "a root without a block is served",
        file: "inspect/root_table.rs",
        changes: &[(
            "if span.is_none_or(|span| span.len < size) {",
            "if span.is_some_and(|span| span.len < size) {",
        )],
        by: By::Test("heap", "damage::"),
    },
    Plant {
        name: "an entry of the root table that was wiped is one that was never used",
        file: "inspect/root_table.rs",
        changes: &[(
            "            return tell(Problem::damaged(offset, what));\n        }\n",
            "            let _ = (offset, what);\n            return Ok(());\n        }\n",
        )],
        by: By::Test("heap", "damage::"),
    },
    Plant {
        name: "the live bits of a closed heap are not compared with their check",
        file: "slab/inventory.rs",
        changes: &[("clean == Clean::Closed &&", "clean == Clean::Unwritten &&")],
        by: By::Unit("tests::sealed"),
    },
    Plant {
        name: "what goes along with a large block stays in the shared runs",
        file: "extent/mod.rs",
        changes: &[(
            "            if self.memory.backed_in(range) == range.pages {\n                return (range, range.pages);",
            "            if self.memory.backed_in(range) == range.pages {\n                return (run.first(pages), pages);",
        )],
        by: By::Unit("extent::tests"),
    },
    Plant {
        name: "a run of an arena is not joined with the one behind it",
        file: "extent/bins.rs",
        changes: &[(
            "            joined.pages += self.remove(behind).pages;\n",
            "            let _ = behind;\n",
        )],
        by: By::Unit("extent::bins"),
    },
];
