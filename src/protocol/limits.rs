//! Every limit of the protocol, in one place, with its reason.

/// Bytes of a record's length field (big-endian).
pub const LENGTH_BYTES: usize = 2;

/// Largest record body after acceptance: what 16 bits can express.
pub const RECORD_BODY: usize = 65_535;

/// Largest record body before AuthAccept (seed 001: 4096 bytes). It bounds what an unauthenticated
/// peer can make the daemon hold.
pub const GREETING_BODY: usize = 4_096;

/// Largest body of the two hellos, which need some 60 bytes. The monitor keeps as much for each
/// connection after its hellos.
pub const HELLO_BODY: usize = 256;

/// Most suites that a Hello may offer.
pub const SUITES_OFFERED: usize = 8;

/// Bytes of an AEAD tag.
pub const TAG: usize = 16;

/// Bytes of the nonce that the monitor draws for each connection.
pub const NONCE: usize = 32;

/// Bytes of the random reference that a refusal carries.
pub const REFERENCE: usize = 8;

/// Bytes before the payload in a data record: type and stream.
pub const DATA_HEADER: usize = 2;

/// Largest payload of one data record: 65,535 less header and tag.
pub const DATA_PAYLOAD: usize = RECORD_BODY - DATA_HEADER - TAG;

/// Bytes that a stream may carry before its reader has granted more.
pub const CREDIT: u32 = 1 << 20;

/// Most credit that may be outstanding on a stream. A grant beyond it is a protocol error of the
/// peer.
pub const CREDIT_MAX: u32 = 1 << 24;

/// Records under one key; Noise's rekey follows. Far below the limit of AES-GCM.
pub const RECORDS_PER_KEY: u64 = 1 << 20;

/// Longest quiet time that a request may name, seconds.
pub const LINGER: u32 = 86_400;
/// Value of the quiet time for: until the outputs are closed.
pub const UNTIL_CLOSED: u32 = u32::MAX;

/// Longest command (the CBOR of its argument vector), with its variables where they follow too,
/// bytes: the kernel takes no argument or variable over 128 KiB. A command that does not fit the
/// ClientHello follows it.
pub const COMMAND: usize = 131_072;

/// Longest command that the ClientHello itself may carry, bytes. The rest of the 4,096 is room for
/// names, keys, environment and proof.
pub const COMMAND_IN_HELLO: usize = 2_560;

/// Payload of one record that carries the rest of a long command: [`GREETING_BODY`] less envelope
/// and tag.
pub const COMMAND_PIECE: usize = GREETING_BODY - 5 - TAG;

/// Most arguments in a command.
pub const ARGUMENTS: usize = 16_384;

/// Longest host or user name, bytes.
pub const NAME: usize = 255;

/// Longest name of a subsystem or of an application, bytes.
pub const SERVICE_NAME: usize = 64;

/// Most formats that a client may take for the result of a named service.
pub const FORMATS: usize = 16;

/// Longest encoding of variables that always fits the ClientHello beside a command of
/// [`COMMAND_IN_HELLO`] bytes, whatever the names in it. Longer ones follow with the command.
pub const VARIABLES_IN_HELLO: usize = 256;

/// Most environment variables that a request may pass: more than any real environment has. The size
/// of the message that carries them bounds their bytes.
pub const VARIABLES: usize = 1_024;
/// Longest name of a variable, bytes.
pub const VARIABLE_NAME: usize = 255;

/// Most texts and prompts in one message: as many as PAM passes at once.
pub const PROMPTS: usize = 32;
/// Longest text or prompt, bytes (PAM_MAX_MSG_SIZE).
pub const PROMPT: usize = 512;
/// Most bytes of all texts of one message together: with their heads they fit a record.
pub const PROMPTS_BYTES: usize = 3_584;
/// Longest answer to a prompt, bytes (PAM_MAX_RESP_SIZE, less its NUL).
pub const REPLY: usize = 511;
/// Most messages with prompts in one login. A PAM stack that asks more often is assumed never to
/// end.
pub const ROUNDS: usize = 32;

/// The message that carries answers is padded to a multiple of this many bytes: room for a password
/// and padding.
pub const ANSWERS_PADDING: usize = 512;

/// Deepest nesting of CBOR in any message.
pub const CBOR_DEPTH: usize = 8;

/// Longest text that says why a job could not be started, bytes.
pub const NOT_STARTED_TEXT: usize = 255;
