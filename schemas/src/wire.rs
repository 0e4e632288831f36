//! Messages to bytes and back: an 8-byte header, then one rkyv archive.
//!
//! The header is `b"TW"`, the wire version (u16 LE), the edge's kind (u16 LE) and two zero bytes. Archives use rkyv's
//! unaligned primitives, because a NATS payload starts at any address; tensor bytes are shared with the payload, never copied.

use bytes::{Bytes, BytesMut};
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{self, Fallible, Strategy};
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Archived, Deserialize, Place, Serialize};

/// Version of every layout in this crate. Another one is refused: an upgrade runs old and new side by side.
pub const WIRE_VERSION: u16 = 6;

const MAGIC: [u8; 2] = *b"TW";
const HEADER_BYTES: usize = 8;

/// Why bytes from the bus are not the expected message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than a header, or not one of ours.
    #[error("not a tokenway message of {bytes} bytes")]
    Foreign {
        /// Length of the payload.
        bytes: usize,
    },
    /// From a process of another wire version.
    #[error("wire version {found}, this process speaks {WIRE_VERSION}")]
    Version {
        /// The version in the message.
        found: u16,
    },
    /// A message of another edge.
    #[error("message kind {found}, expected {expected}")]
    Kind {
        /// The kind in the message.
        found: u16,
        /// The kind asked for.
        expected: u16,
    },
    /// The archive fails validation.
    #[error("invalid archive of kind {kind} in {bytes} bytes")]
    Archive {
        /// The kind asked for.
        kind: u16,
        /// Length of the payload.
        bytes: usize,
    },
    /// The archive is sound and its contents break an invariant of the edge.
    #[error("kind {kind}: {reason}")]
    Invalid {
        /// The kind asked for.
        kind: u16,
        /// The broken invariant.
        reason: String,
    },
}

/// A message type of one edge.
pub trait Edge: Sized + for<'a> Serialize<Encoder<'a>> {
    /// The number of this edge in the header.
    const KIND: u16;

    /// Checks invariants that the layout cannot express.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The kind in the header of `payload`, after magic and version were checked.
pub fn kind(payload: &[u8]) -> Result<u16, WireError> {
    let Some(header) = payload.first_chunk::<HEADER_BYTES>() else {
        return Err(WireError::Foreign { bytes: payload.len() });
    };
    if header[..2] != MAGIC {
        return Err(WireError::Foreign { bytes: payload.len() });
    }
    let version = u16::from_le_bytes([header[2], header[3]]);
    if version != WIRE_VERSION {
        return Err(WireError::Version { found: version });
    }
    Ok(u16::from_le_bytes([header[4], header[5]]))
}

/// The bytes of `message`.
pub fn encode<T: Edge>(message: &T) -> Bytes {
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(&MAGIC);
    header[2..4].copy_from_slice(&WIRE_VERSION.to_le_bytes());
    header[4..6].copy_from_slice(&T::KIND.to_le_bytes());
    let mut writer = Buffer(BytesMut::with_capacity(256));
    writer.0.extend_from_slice(&header);
    rkyv::api::high::to_bytes_in::<_, rancor::Failure>(message, writer)
        .expect("a growing buffer takes any archive")
        .0
        .freeze()
}

/// Validates `payload` and reads it. Tensor bytes of the result share `payload`'s allocation.
pub fn decode<T>(payload: &Bytes) -> Result<T, WireError>
where
    T: Edge + Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Failure>> + Deserialize<T, Decoder>,
{
    let found = kind(payload)?;
    if found != T::KIND {
        return Err(WireError::Kind { found, expected: T::KIND });
    }
    let body = &payload[HEADER_BYTES..];
    let invalid = |_: rancor::Failure| WireError::Archive { kind: T::KIND, bytes: payload.len() };
    let archived = rkyv::access::<Archived<T>, rancor::Failure>(body).map_err(invalid)?;
    let message: T =
        rkyv::api::deserialize_using(archived, &mut Message(payload.clone())).map_err(invalid)?;
    message.check().map_err(|reason| WireError::Invalid { kind: T::KIND, reason })?;
    Ok(message)
}

/// The rkyv serializer behind [`encode`].
pub type Encoder<'a> =
    rkyv::api::high::HighSerializer<Buffer, rkyv::ser::allocator::ArenaHandle<'a>, rancor::Failure>;

/// The rkyv deserializer behind [`decode`].
pub type Decoder = Strategy<Message, rancor::Failure>;

/// The payload a message is read from.
pub struct Message(Bytes);

/// A growing byte buffer that rkyv can write to.
#[derive(Debug)]
pub struct Buffer(BytesMut);

impl rkyv::ser::Positional for Buffer {
    fn pos(&self) -> usize {
        self.0.len() - HEADER_BYTES
    }
}

impl<E> Writer<E> for Buffer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// A deserializer that can hand out parts of the payload it reads.
pub trait Share {
    /// The part of the payload that is `part`.
    fn share(&self, part: &[u8]) -> Bytes;
}

impl Share for Decoder {
    fn share(&self, part: &[u8]) -> Bytes {
        self.0.slice_ref(part)
    }
}

/// rkyv wrapper for bytes that stay inside the message they came in.
pub struct SharedBytes;

impl ArchiveWith<Bytes> for SharedBytes {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve_with(field: &Bytes, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(field, resolver, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> SerializeWith<Bytes, S> for SharedBytes {
    fn serialize_with(field: &Bytes, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        ArchivedVec::serialize_from_slice(field, serializer)
    }
}

impl<D: Fallible + Share + ?Sized> DeserializeWith<ArchivedVec<u8>, Bytes, D> for SharedBytes {
    fn deserialize_with(field: &ArchivedVec<u8>, deserializer: &mut D) -> Result<Bytes, D::Error> {
        Ok(deserializer.share(field))
    }
}
