//! What is right for each case.
//!
//! A case is told from its name. Its script runs in an empty folder under `$HEAPS`, with the cases built for Rust in `$RUST`
//! and their crate in `$PROGRAMS`, those in C in `$C`, the scripts in `$SH`, the crate of the tests in `$TESTS` and the command
//! of this checkout as `$P`.

/// One case.
pub(super) struct Case {
    /// Its folder and the name of its file.
    pub(super) name: &'static str,
    /// What is right, or what is known of a case that isn't.
    pub(super) should: &'static str,
    /// The tools without which it is skipped.
    pub(super) needs: &'static [&'static str],
    /// Whether it is changed to compile with the interface of today.
    pub(super) adapt: bool,
    pub(super) right: Right,
}

/// How to tell whether a case is right.
pub(super) enum Right {
    /// A script that ends with 0 if it is.
    Behaves(&'static str),
    /// The compiler refuses it with this error.
    Refused(&'static str),
    /// It isn't yet, which is known: it is not run.
    Later,
    /// Others run it.
    Helper,
}

pub(super) fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

const fn case(name: &'static str, should: &'static str, right: Right) -> Case {
    Case { name, should, needs: &[], adapt: false, right }
}

const fn behaves(name: &'static str, should: &'static str, script: &'static str) -> Case {
    case(name, should, Right::Behaves(script))
}

impl Case {
    const fn needs(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }

    const fn adapted(self) -> Self {
        Self { adapt: true, ..self }
    }
}

use Right::{Helper, Later, Refused};

pub(super) const CASES: &[Case] = &[
    case("rust/mkroots", "", Helper),
    case("rust/mkseed", "", Helper),
    case("c/fill", "", Helper),
    case("rust/count_mallocs", "it counts and judges nothing: tests/counts/volatile.rs holds the numbers", Later),
    case("c/opcost", "it counts and judges nothing: `cargo xtask instructions` holds the numbers", Later),
    case("rust/leak", "one struct owns a heap and its root", Later),
    case("rust/upgrade", "a changed type is migrated", Later),
    case("c/two", "a small heap is used fully after a change of size", Later),
    case(
        "rust/h1_medium",
        "no slot of a heap is a word of its medium",
        Refused("the trait bound `pmalloc::Slot: OnMedia` is not satisfied"),
    ),
    case(
        "rust/sigbus",
        "safe code gets no medium of a heap",
        Refused("::medium` is unsafe and requires unsafe"),
    ),
    case(
        "rust/h2_liar",
        "who implements a medium says `unsafe`",
        Refused("Medium` requires an `unsafe impl` declaration"),
    ),
    case(
        "rust/h3_twice",
        "a medium that others have needs `unsafe`",
        Refused("Exclusive` is not satisfied"),
    ),
    behaves(
        "rust/m4_publish",
        "no data race with a reader of a new block",
        r#"cd "$PROGRAMS"; export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-many-seeds=0..4"
               ends 0 cargo +nightly miri run --quiet --bin m4_publish; never "Undefined Behavior"; says "^[1-9][0-9]*$""#,
    )
    .needs(&["miri"]),
    behaves(
        "rust/h4_slow",
        "a reader sees new blocks with their slots stored",
        r#"ends 0 "$RUST/h4_slow"; says "changed 0 times"; says ", 0 found fewer""#,
    )
    .adapted(),
    behaves(
        "rust/h5_copy",
        "a private mapping beside a heap is refused",
        r#"ends 1 "$RUST/h5_copy"; never "ReadOnly mapping""#,
    ),
    behaves(
        "rust/forkapi",
        "every call in a forked child ends with an error",
        r#"ends 0 "$RUST/forkapi" "$PWD/h"; says Forked; never "CHILD STATUS""#,
    ),
    behaves(
        "rust/bitflip",
        "a heap of which any live bit is cleared is refused, closed or not, and the check says why",
        r#""$RUST/mkroots" closed; timeout -s KILL 0.3 "$RUST/mkseed" killed run 5
               for heap in closed killed; do
                 all=$(grep -abo PMALSLAB $heap | cut -d: -f1); first=$(head -n 1 <<<"$all"); last=$(tail -n 1 <<<"$all")
                 ends 0 "$RUST/bitflip" $heap flips $first $((last + 512)); done
               [ $(grep -c ": [1-9][0-9]*,$" "$OUT") = 2 ] || wrong "not refused all"
               [ $(grep -c "check reports | refused the heap is corrupte" "$OUT") = 2 ] || wrong "not refused""#,
    ),
    behaves(
        "rust/rootflip",
        "a heap of which the live bit of any block of a root is cleared doesn't open",
        r#""$RUST/mkroots" h; declare -A head; flips=0
               for at in $(grep -abo PMALSLAB h | cut -d: -f1); do head[$at]=1; : ${first:=$at}; last=$at; done
               while read -r at byte; do
                 at=$((10#$at)); [ "${head[$((at & ~63))]}" ] && continue
                 for bit in {0..7}; do
                   (((byte >> bit & 1) == 0)) && continue
                   cp --sparse=always h flipped; ends 101 "$RUST/rootflip" flipped $at $bit; flips=$((flips + 1))
                 done
               done < <(od -Ad -v -w1 -tu1 -j $first -N $((last + 512 - first)) h)
               never "open: Ok|check: ..$"
               [ $flips -gt 50 ] && [ $(grep -c "Err. value: Corrupted" "$OUT") = $flips ] || wrong "$flips flips""#,
    ),
    behaves(
        "sh/root_line",
        "a zeroed line of a root's entry is a problem",
        r#""$RUST/mkroots" h; ends 0 bash "$SH/root_line.sh" "$P" h; says "check rc=3"; says "recover rc=3"
               says "a root entry was wiped"; says "salvage rc=3""#,
    ),
    behaves(
        "sh/power_loss_check",
        "the heap that open refuses has a problem",
        r#"d=$(mktemp -d -p /var/tmp); trap 'rm -rf "$d"' EXIT
               timeout -s KILL 0.3 "$RUST/mkseed" "$d/h" run 5
               ends 0 bash "$SH/power_loss_check.sh" "$P" "$d/h"; says "check rc=3"; says "recover rc=3"; says power-loss; rm -rf "$d""#,
    )
    .needs(&["root"]),
    behaves(
        "sh/dirfsync",
        "an error says what has happened, or nothing has",
        r#""$RUST/mkroots" h; ends 0 bash "$SH/dirfsync.sh" "$P" "$PWD/h"
               says "is there: $"; says "retry rc=0"; says "salvage rc=1, but: h$"; says "salvage again rc=3""#,
    )
    .needs(&["strace"]),
    behaves(
        "sh/fulltmpfs2",
        "no command dies on a full file system",
        r#"mkdir m; for how in inplace cp cpsparse; do
                 ends 0 bash "$SH/fulltmpfs2.sh" "$PWD/m" "$P" "$RUST/mkseed" $how; done
               says "inplace: recover rc=0"; says "cpsparse: check rc=0"; never "rc=[2-9]|rc=1[0-9]|(check|map|stats) rc=1""#,
    )
    .needs(&["root"]),
    behaves(
        "sh/btrfs_full",
        "no call dies on a full btrfs, although it may wait for room; with mixed block groups it may die; of both is warned",
        r#"printf '#!/bin/sh\nexec timeout -s KILL 20 "$C/fill" "$@"\n' >fill; chmod +x fill; export TMPDIR=$PWD C
               export MIXED=; ends 0 sh "$SH/btrfs_full.sh" "$PWD/fill" "$P"
               says "rc (0|137)"; never "rc ([1-9]|1[0-24-9][0-9]|13[0-68-9])$"; says "waits for each page"; says "ok  *yes"
               : >"$OUT"; export MIXED=-M; ends 0 sh "$SH/btrfs_full.sh" "$PWD/fill" "$P"
               says "rc (0|135|137)"; says "mixed block groups"; says "ok  *yes""#,
    )
    .needs(&["root", "a loop device", "mkfs.btrfs"]),
    behaves(
        "sh/ext3_full",
        "no call dies on a full file system without extents",
        r#"ends 0 sh "$SH/ext3_full.sh" "$C/fill" "$P"; says "rc 0"; never "rc [1-9]|warning|problems [1-9]""#,
    )
    .needs(&["root", "a loop device", "mkfs.ext4"]),
    behaves(
        "sh/reflink_full",
        "a copy that shares its room doesn't kill who opens it",
        r#"ends 0 sh "$SH/reflink_full.sh" "$P"; says "c: rc"; never "rc 1[0-9][0-9]""#,
    )
    .needs(&["root", "a loop device", "mkfs.xfs"]),
    behaves(
        "sh/slash2",
        "a name with a slash behind it makes nothing",
        r#"ends 0 env TMPDIR="$PWD" sh "$SH/slash2.sh" "$P"; never "create new/: rc 0"; says "slash"
               [ -z "$(find . -name new)" ] || wrong "new is there""#,
    ),
    behaves(
        "c/slash",
        "a name with a slash behind it makes nothing",
        r#"ends 0 "$C/slash"; says 'create "new/": [1-9]'; [ ! -e new ] && [ ! -e new2 ] || wrong "made""#,
    ),
    behaves(
        "c/late",
        "a thread that uses a heap last of all gives back what it had",
        r#"for what in a p g P c r R; do for first in "" late; do
                 ends 0 "$C/late" h 1000 $what $first; rm -f h; done; done
               # The size after 250 threads and after 1000: each that strands something takes some pages more.
               while read -r line; do set -- ${line//:/ }; [ $# = 8 ] || wrong "it doesn't end"
                 [ $8 -lt $(($2 + (1 << 20))) ] || wrong "grows from $2 to $8"; done <"$OUT""#,
    ),
    behaves(
        "c/decay",
        "small blocks give memory back as they come and go",
        r#"ends 0 "$C/decay" h 500 100 1000 4000
               left=$(grep -oE '[0-9]+ MiB' "$OUT" | tail -1); [ "${left% MiB}" -lt 250 ] || wrong "$left left""#,
    ),
    behaves(
        "c/lock",
        "a limit of locked memory is named as the cause",
        r#"chmod 711 "$HEAPS" "$PWD" "${C%/*}"; chmod 777 .; ulimit -l 8192
               if [ "$(id -u)" = 0 ]; then as="setpriv --reuid=65534 --regid=65534 --clear-groups"; fi
               ends 1 $as "$C/lock" "$PWD/h" 1073741824; says "create [1-9]+ .*ulimit -l""#,
    ),
    behaves(
        "c/sizes",
        "an alignment that nothing has is an argument, not a lack of room",
        r#"ends 0 "$C/sizes" h 67108864; never "BAD|MISALIGNED|differs|align 0x8000000000000000: E2"
               says "align 0x8000000000000000: E1"; says "problems 0""#,
    ),
    behaves(
        "c/rawzero",
        "an emptied slot reads as empty and leaves no error",
        r#"ends 0 "$C/rawzero" h; says "freed raw .* get \(nil\)"; says "moved-out raw .* get \(nil\)""#,
    ),
    behaves(
        "c/m2",
        "every group ends, with the error that its cause has",
        // Not badclose: who uses a heap that is closed breaks the contract.
        r#"for group in enospc enospc2 enospc3 rlimit fsize lasterr key atexit orphan stale cap crossfork; do
                 ends 0 "$C/m2" "$PWD/h" $group; done
               never "!!"; never "check [1-9]|check 0/[1-9]"; says "blocks, then 2 "; says "iter 900 .900""#,
    )
    .needs(&["root"]),
    behaves(
        "c/m3",
        "nothing is torn, stuck or lost; what copies of slots and uninitialised blocks show is the caller's to avoid",
        r#"for group in stale uninit roots create race racekill peak; do ends 0 "$C/m3" "$PWD/h" $group; done
               never "!!|torn [1-9]|stuck [1-9]|bad [1-9]|check [1-9]|check 0/[1-9]"; says "40 kills bad 0 torn 0"
               says "used ([0-9]+) iter-1 \1$"; says "opens [1-9][0-9]*, stuck 0""#,
    ),
    behaves(
        "c/dang",
        "a copy of a slot whose block is gone is an error, and a block that nothing owns is told",
        r#"ends 0 "$C/dang" h; says "not the start of a live block"; ends 0 "$P" check h; says "1 that nothing owns""#,
    ),
    behaves(
        "tests/open_flag_not_synced",
        "the flag of an open heap is forced to the disk first",
        r#"cd "$TESTS"; ends 0 cargo test --release --quiet --test open_flag_not_synced -- --nocapture; says "ok. 1 passed""#,
    )
    .adapted(),
    behaves(
        "tests/survivors",
        "guards, remote queues and typed parents keep what they have to",
        r#"cd "$TESTS"; ends 0 cargo test --release --quiet --test survivors -- --nocapture; says "ok. 3 passed""#,
    )
    .adapted(),
    behaves(
        "tests/survivors2",
        "slots that wrap and children of new blocks are redone",
        r#"cd "$TESTS"; ends 0 cargo test --release --quiet --test survivors2 -- --nocapture; says "ok. 2 passed""#,
    )
    .adapted(),
];
