# Shorthands over plain cargo: each recipe is what you could type. `just` lists them.

miri_toolchain := env("MIRI_TOOLCHAIN", "nightly")

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
    PMALLOC_WRITE_FIXTURES=1 cargo test -p pmalloc --test fixtures

# The tables of docs/format.md.
format:
    cargo xtask format

# Undefined behaviour and data races in the media primitives.
miri *ARGS:
    MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-strict-provenance" \
        cargo +{{miri_toolchain}} miri test -p pmalloc-persist --lib {{ARGS}}

# All benchmarks.
bench *ARGS:
    cargo bench --workspace {{ARGS}}

# Everything that CI runs.
ci:
    bash .ci/run
