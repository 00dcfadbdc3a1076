//! Reads allocation traces (`.mtr`, or the same compressed with Zstandard) and refuses malformed ones.
//!
//! Everything a later stage relies on is checked here once: ids count up, a free names a live block,
//! threads are in range. Memory grows with the events that were really read, never with what a header
//! claims. Volatile.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use ruzstd::decoding::StreamingDecoder;

/// First bytes of a trace.
const MAGIC: [u8; 4] = *b"MTR1";

/// First bytes of a Zstandard frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Most threads a trace may have: a heap has that many lanes.
const MAX_THREADS: u32 = 1024;

/// Most events that are read: an in-memory bound, far above any recording.
const MAX_EVENTS: u64 = 1 << 27;

/// Largest block a trace may ask for, in bytes.
const MAX_SIZE_BYTES: u64 = 1 << 40;

/// Number of an allocation: they count up from 0 and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockId(u32);

impl BlockId {
    /// The `index`-th allocation.
    pub(crate) const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number itself.
    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    /// The number as an index.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {}", self.0)
    }
}

/// What an event does to its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Allocates it.
    Alloc,
    /// Frees it.
    Free,
}

/// One event of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// The block.
    pub(crate) block: BlockId,
    /// The thread that does it.
    pub(crate) thread: u16,
    /// What is done.
    pub(crate) operation: Operation,
}

/// A valid trace.
#[derive(Debug)]
pub(crate) struct Trace {
    /// Number of threads.
    pub(crate) threads: u16,
    /// Events in global order.
    pub(crate) events: Vec<Event>,
    /// Requested size in bytes of each block, by id.
    pub(crate) sizes: Vec<u64>,
}

/// Why a trace can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("not a trace: it does not begin with MTR1")]
    NotATrace,
    #[error("the trace is cut off: it ends inside event {event} of {events}")]
    Truncated { event: u64, events: u64 },
    #[error("the trace has bytes after its last event")]
    TrailingBytes,
    #[error("the trace claims {threads} threads: 1 to {MAX_THREADS} can be replayed")]
    Threads { threads: u32 },
    #[error("the trace claims {events} events: at most {MAX_EVENTS} can be replayed")]
    TooManyEvents { events: u64 },
    #[error("event {event}: thread {thread} of a trace with {threads} threads")]
    ThreadRange { event: u64, thread: u64, threads: u16 },
    #[error("event {event}: an allocation has id {found}, the next one is {expected}")]
    IdOrder { event: u64, found: u64, expected: u32 },
    #[error("event {event}: a free of id {id}, which was never allocated")]
    UnknownId { event: u64, id: u64 },
    #[error("event {event}: a second free of id {id}")]
    DoubleFree { event: u64, id: u64 },
    #[error("event {event}: an allocation of 0 bytes")]
    ZeroSize { event: u64 },
    #[error("event {event}: an allocation of {size} bytes, the most is {MAX_SIZE_BYTES}")]
    TooLarge { event: u64, size: u64 },
    #[error("event {event}: a number of more than 64 bits")]
    Overlong { event: u64 },
    #[error("the trace can't be read: {0}")]
    Io(#[from] io::Error),
}

impl Trace {
    /// Reads the trace in the file `path`, compressed or not.
    pub(crate) fn open(path: &Path) -> Result<Self, TraceError> {
        Self::read(File::open(path)?)
    }

    /// Reads a trace, compressed or not.
    pub(crate) fn read(source: impl Read) -> Result<Self, TraceError> {
        let mut source = BufReader::new(source);
        if !begins_with(&mut source, ZSTD_MAGIC)? {
            return Parser::new(source).run();
        }
        let decoder = StreamingDecoder::new(source).map_err(io::Error::other)?;
        Parser::new(BufReader::new(decoder)).run()
    }

    /// Writes the trace, uncompressed.
    pub(crate) fn write(&self, sink: &mut impl io::Write) -> io::Result<()> {
        sink.write_all(&MAGIC)?;
        sink.write_all(&u32::from(self.threads).to_le_bytes())?;
        sink.write_all(&(self.events.len() as u64).to_le_bytes())?;
        for event in &self.events {
            let key = u64::from(event.block.get()) * 2;
            match event.operation {
                Operation::Alloc => {
                    write_number(sink, key)?;
                    write_number(sink, self.sizes[event.block.index()])?;
                }
                Operation::Free => write_number(sink, key + 1)?,
            }
            write_number(sink, u64::from(event.thread))?;
        }
        Ok(())
    }
}

/// Whether the next bytes of `source` are `magic`; reads nothing.
fn begins_with(source: &mut impl BufRead, magic: [u8; 4]) -> io::Result<bool> {
    Ok(source.fill_buf()?.starts_with(&magic))
}

fn write_number(sink: &mut impl io::Write, mut value: u64) -> io::Result<()> {
    let mut bytes = [0; 10];
    let mut len = 0;
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        bytes[len] = if value == 0 { low } else { low | 0x80 };
        len += 1;
        if value == 0 {
            return sink.write_all(&bytes[..len]);
        }
    }
}

/// Reads events and keeps what is needed to check them.
struct Parser<R> {
    source: R,
    event: u64,
    events: u64,
    threads: u16,
    sizes: Vec<u64>,
    live: Vec<bool>,
}

impl<R: BufRead> Parser<R> {
    fn new(source: R) -> Self {
        Self { source, event: 0, events: 0, threads: 0, sizes: Vec::new(), live: Vec::new() }
    }

    fn run(mut self) -> Result<Trace, TraceError> {
        self.header()?;
        let mut events = Vec::new();
        while self.event < self.events {
            events.push(self.event()?);
            self.event += 1;
        }
        if !self.source.fill_buf()?.is_empty() {
            return Err(TraceError::TrailingBytes);
        }
        Ok(Trace { threads: self.threads, events, sizes: self.sizes })
    }

    fn header(&mut self) -> Result<(), TraceError> {
        if self.bytes::<4>().map_err(not_a_trace)? != MAGIC {
            return Err(TraceError::NotATrace);
        }
        let threads = u32::from_le_bytes(self.bytes()?);
        self.events = u64::from_le_bytes(self.bytes()?);
        self.threads = match u16::try_from(threads) {
            Ok(count) if (1..=MAX_THREADS).contains(&threads) => count,
            _ => return Err(TraceError::Threads { threads }),
        };
        if self.events > MAX_EVENTS {
            return Err(TraceError::TooManyEvents { events: self.events });
        }
        Ok(())
    }

    fn event(&mut self) -> Result<Event, TraceError> {
        let key = self.number()?;
        let (block, operation) = match key & 1 {
            0 => (self.alloc(key >> 1)?, Operation::Alloc),
            _ => (self.free(key >> 1)?, Operation::Free),
        };
        Ok(Event { block, thread: self.thread()?, operation })
    }

    fn alloc(&mut self, id: u64) -> Result<BlockId, TraceError> {
        let event = self.event;
        let expected = u32::try_from(self.sizes.len()).expect("no more ids than events");
        if id != u64::from(expected) {
            return Err(TraceError::IdOrder { event, found: id, expected });
        }
        match self.number()? {
            0 => Err(TraceError::ZeroSize { event }),
            size if size > MAX_SIZE_BYTES => Err(TraceError::TooLarge { event, size }),
            size => {
                self.sizes.push(size);
                self.live.push(true);
                Ok(BlockId::new(expected))
            }
        }
    }

    fn free(&mut self, id: u64) -> Result<BlockId, TraceError> {
        let event = self.event;
        let unknown = TraceError::UnknownId { event, id };
        let Ok(number) = u32::try_from(id) else { return Err(unknown) };
        let block = BlockId::new(number);
        match self.live.get_mut(block.index()) {
            None => Err(unknown),
            Some(false) => Err(TraceError::DoubleFree { event, id }),
            Some(live) => {
                *live = false;
                Ok(block)
            }
        }
    }

    fn thread(&mut self) -> Result<u16, TraceError> {
        let (event, threads) = (self.event, self.threads);
        let thread = self.number()?;
        match u16::try_from(thread) {
            Ok(index) if index < threads => Ok(index),
            _ => Err(TraceError::ThreadRange { event, thread, threads }),
        }
    }

    /// Reads an unsigned LEB128 integer.
    fn number(&mut self) -> Result<u64, TraceError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.bytes()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(TraceError::Overlong { event: self.event })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], TraceError> {
        let mut bytes = [0; N];
        match self.source.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(TraceError::Truncated { event: self.event, events: self.events })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A file too short for the magic is no trace; other errors stand.
fn not_a_trace(error: TraceError) -> TraceError {
    match error {
        TraceError::Truncated { .. } => TraceError::NotATrace,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace_bytes(threads: u32, events: u64, numbers: &[u64]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(threads.to_le_bytes());
        bytes.extend(events.to_le_bytes());
        for &number in numbers {
            write_number(&mut bytes, number).expect("a vector takes bytes");
        }
        bytes
    }

    fn error_of(bytes: &[u8]) -> TraceError {
        Trace::read(bytes).expect_err("the trace is malformed")
    }

    #[test]
    fn a_small_trace_is_read_and_written_back() {
        let bytes = trace_bytes(2, 3, &[0, 300, 1, 2, 16, 0, 1, 0]);
        let trace = Trace::read(&bytes[..]).expect("a valid trace");
        assert_eq!((trace.threads, &trace.sizes[..]), (2, &[300, 16][..]));
        let freed = Event { block: BlockId::new(0), thread: 0, operation: Operation::Free };
        assert_eq!(trace.events[2], freed);
        let mut again = Vec::new();
        trace.write(&mut again).expect("a vector takes bytes");
        assert_eq!(again, bytes);
    }

    #[test]
    fn compressed_is_told_by_its_first_bytes() {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        let bytes = trace_bytes(1, 1, &[0, 64, 0]);
        let packed = compress_to_vec(&bytes[..], CompressionLevel::Fastest);
        let trace = Trace::read(&packed[..]).expect("a valid trace");
        assert_eq!(trace.sizes, [64]);
        assert!(Trace::read(&packed[..packed.len() - 2]).is_err(), "a cut frame");
    }

    #[test]
    fn each_malformation_has_its_error() {
        use TraceError as E;
        assert!(matches!(error_of(b""), E::NotATrace));
        assert!(matches!(error_of(b"MTR2\0\0\0\0"), E::NotATrace));
        assert!(matches!(error_of(b"MTR1\x01\0\0"), E::Truncated { .. }));
        assert!(matches!(error_of(&trace_bytes(0, 0, &[])), E::Threads { threads: 0 }));
        assert!(matches!(error_of(&trace_bytes(70_000, 0, &[])), E::Threads { .. }));
        assert!(matches!(error_of(&trace_bytes(1, u64::MAX, &[])), E::TooManyEvents { .. }));
        assert!(matches!(error_of(&trace_bytes(1, 1 << 20, &[])), E::Truncated { .. }));
        assert!(matches!(error_of(&trace_bytes(1, 1, &[0, 8])), E::Truncated { event: 0, .. }));
        assert!(matches!(error_of(&trace_bytes(1, 1, &[0, 8, 1])), E::ThreadRange { .. }));
        assert!(matches!(error_of(&trace_bytes(1, 1, &[2, 8, 0])), E::IdOrder { found: 1, .. }));
        assert!(matches!(error_of(&trace_bytes(1, 1, &[0, 0, 0])), E::ZeroSize { event: 0 }));
        assert!(matches!(error_of(&trace_bytes(1, 1, &[0, u64::MAX, 0])), E::TooLarge { .. }));
        assert!(matches!(error_of(&trace_bytes(1, 1, &[1, 0])), E::UnknownId { id: 0, .. }));
        assert!(matches!(error_of(&trace_bytes(1, 1, &[u64::MAX, 0])), E::UnknownId { .. }));
        let twice = trace_bytes(1, 3, &[0, 8, 0, 1, 0, 1, 0]);
        assert!(matches!(error_of(&twice), E::DoubleFree { event: 2, id: 0 }));
        assert!(matches!(error_of(&trace_bytes(1, 0, &[0])), E::TrailingBytes));
        let mut overlong = trace_bytes(1, 1, &[]);
        overlong.extend([0xff; 11]);
        assert!(matches!(error_of(&overlong), E::Overlong { event: 0 }));
    }

    #[test]
    fn any_cut_of_a_trace_is_an_error() {
        let bytes = trace_bytes(2, 3, &[0, 300, 1, 2, 16, 0, 1, 0]);
        for len in 0..bytes.len() {
            assert!(Trace::read(&bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
