# Shorthands over plain cargo: each recipe is what you could type. `just` lists them.

miri_toolchain := env("MIRI_TOOLCHAIN", "nightly")
miri_rules := "-Zmiri-tree-borrows -Zmiri-strict-provenance -Zmiri-disable-isolation"
host := arch() + "-unknown-linux-gnu"

_default:
    @just --list --unsorted

# What must hold before a commit: format, spelling, licences, house rules, lints, docs.
pre:
    cargo fmt --all --check
    typos
    cargo deny check bans licenses sources
    cargo xtask tidy
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --lib --no-deps

# All tests, documentation tests included.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The tests whose names speak of crashes.
crash *ARGS:
    cargo test --workspace crash {{ARGS}}

# Every byte and bit of a small heap's metadata changed, and a million heaps forged with good checksums.
corruption:
    PMALLOC_CORRUPTION=full cargo test --release -p pmalloc --test corruption -- --nocapture
    PMALLOC_FORGED=1000000 cargo test --release -p pmalloc --lib forged -- --nocapture

# Writes the fixture heaps of the present format version anew; those of released versions stay as they are.
fixtures:
    PMALLOC_WRITE_FIXTURES=1 cargo test -p pmalloc --test heap -- fixtures::

# The tables of docs/format.md.
format:
    cargo xtask format

# Schedules of threads with crashes: `just schedules --schedules 200000 --seed 1`.
schedules *ARGS:
    RUSTFLAGS="--cfg shuttle" cargo run --release -p pmalloc-schedules --target-dir target/shuttle -- {{ARGS}}

# Bugs that schedules, explorer or tests must find, planted one at a time in a copy of the sources.
[positional-arguments]
plants *ARGS:
    cargo run -p pmalloc-schedules --bin plants -- "$@"

# Faults of logic that tests must notice, planted one at a time: `just mutants -f 'crates/pmalloc/src/lane/**'`.
[positional-arguments]
mutants *ARGS:
    cargo xtask mutants "$@"

# A replay that is killed, half of it publishes and their like: `just kills 2000 --seed 1`.
kills N="300" *ARGS:
    cargo run --release -- replay --kills {{N}} --publish 50 {{ARGS}}

# Undefined behaviour and data races in the media primitives and the heap.
miri *ARGS:
    MIRIFLAGS="{{miri_rules}}" cargo +{{miri_toolchain}} miri test -p pmalloc-persist --lib {{ARGS}}
    MIRIFLAGS="{{miri_rules}}" cargo +{{miri_toolchain}} miri test -p pmalloc --test miri {{ARGS}}
    MIRIFLAGS="{{miri_rules}}" cargo +{{miri_toolchain}} miri test -p pmalloc --lib -- op::limbo

# The same under many of miri's schedules and weak memory orders: `just miri-seeds 0..64`.
miri-seeds SEEDS:
    MIRIFLAGS="{{miri_rules}} -Zmiri-many-seeds={{SEEDS}}" \
        cargo +{{miri_toolchain}} miri test -p pmalloc --test miri
    MIRIFLAGS="{{miri_rules}} -Zmiri-many-seeds={{SEEDS}}" \
        cargo +{{miri_toolchain}} miri test -p pmalloc --lib -- op::limbo

# Data races of real threads, over anonymous memory and a file: `just tsan 600`.
tsan SECONDS="60":
    RUSTFLAGS="-Zsanitizer=thread" PMALLOC_STRESS_SECONDS={{SECONDS}} TSAN_OPTIONS="halt_on_error=1" \
        cargo +{{miri_toolchain}} test --release -Zbuild-std --target {{host}} --target-dir target/tsan \
        -p pmalloc --test heap -- stress::

# Accesses out of bounds and leaks, of sound and of damaged heaps: `just asan 600`.
asan SECONDS="60":
    RUSTFLAGS="-Zsanitizer=address" PMALLOC_STRESS_SECONDS={{SECONDS}} \
        cargo +{{miri_toolchain}} test --release --target {{host}} --target-dir target/asan \
        -p pmalloc --test heap --test corruption -- stress:: every_metadata_byte

# What operations cost: `just bench --full --out results`, `just bench compare old results`.
bench *ARGS:
    cargo run --release -- bench {{ARGS}}

# How many instructions operations run: `just instructions --bless` takes what is counted as the new ranges.
instructions *ARGS:
    cargo xtask instructions {{ARGS}}

# How many bitmap stripes are best.
stripes:
    cargo bench -p pmalloc-bench --bench stripes

# Small programs that once showed a wrong behaviour, in a folder of them: `just cases DIR`, `just cases DIR c/late`.
cases DIR *NAMES:
    cargo xtask cases {{DIR}} {{NAMES}}

# Everything that CI runs.
ci:
    bash .ci/run
