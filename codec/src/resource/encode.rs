//! Encodes one NDJSON line as the jsonb bytes of its table's `resource` column.
//!
//! The line is read once. Values wait in `pending` until the container around them closes. Then its entries move, sorted, to
//! `closed`, and the container takes their place in `pending` as one value. Strings without escapes stay in the line;
//! converted values are in `arena`. Every byte is written once, when the whole resource is known. The memory is reused for
//! the next line.

mod identity;

use super::encoded::Encoded;
use super::to_aidbox::{LOOK_AHEAD, ToAidbox};
use crate::error::{IdRule, Limit, LineError, Reason, Refusal};
use crate::fhir::Version;
use crate::fhir::definitions::{Choice, NodeId};
use crate::jsonb::build::Tree;
use crate::jsonb::parse::Tokens;
use crate::jsonb::value::{Entry, Name, Source, Value, keep_last_of_each_name, sort_members};
use crate::jsonb::{MAX_BYTES, MAX_DEPTH, MAX_ENTRIES, kind};

/// Buffers larger than this are freed after the line that needed them.
const KEEP_BYTES: usize = 8 << 20;

/// The role of a container in its resource.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Resource,
    Meta,
    MetaExtensions,
    MetaExtension,
    Plain,
}

/// An open container.
struct Frame {
    role: Role,
    is_object: bool,
    /// Its name in the object around it.
    name: Name,
    /// The first of its entries in `pending`.
    first: usize,
    /// Where in the line it starts.
    line_start: usize,
    /// Its structure in FHIR's definitions.
    node: NodeId,
    /// Whether the structure is that of the first `resourceType` found.
    is_searched: bool,
    /// The choice into which its name will be split.
    choice: Option<&'static Choice>,
    /// Whether a member's name was split.
    has_choices: bool,
}

/// Encodes any number of lines as stored resources.
pub struct Encoder {
    created_at_url: Vec<u8>,
    id_rule: IdRule,
    strip_before: usize,
    to_aidbox: Option<ToAidbox>,
    /// How many bytes may still be searched for `resourceType`s of this line.
    look_ahead: usize,
    /// Whether a resource was read as one of another type.
    mistaken: bool,
    frames: Vec<Frame>,
    pending: Vec<Entry>,
    closed: Vec<Entry>,
    arena: Vec<u8>,
    created_at: Option<Value>,
}

impl Encoder {
    /// `created_at_url` names the `meta.extension` that carries the creation time.
    pub fn new(id_rule: IdRule, created_at_url: &str) -> Encoder {
        Encoder {
            created_at_url: created_at_url.as_bytes().to_vec(),
            id_rule,
            strip_before: 0,
            to_aidbox: None,
            look_ahead: 0,
            mistaken: false,
            frames: Vec::new(),
            pending: Vec::new(),
            closed: Vec::new(),
            arena: Vec::new(),
            created_at: None,
        }
    }

    /// Reads lines in FHIR form, by the definitions of `version`, and stores them in Aidbox form. `resource_type` is the
    /// type of all lines, if they have one type. Extensions keep their `valueX` unless `convert_extensions` is true.
    pub fn from_fhir(mut self, version: Version, convert_extensions: bool, resource_type: Option<&str>) -> Encoder {
        let conversion = ToAidbox::new(version, convert_extensions, resource_type);
        self.arena = conversion.definitions.texts.clone();
        self.to_aidbox = Some(conversion);
        self
    }

    /// From the next line on, leaves out members that are null, before this byte of the line.
    pub fn strip_nulls_before(&mut self, offset: usize) {
        self.strip_before = offset;
    }

    /// Reads one line: a single JSON object, with white space around it allowed.
    ///
    /// # Errors
    /// A [`Reason`], with the byte of the line.
    pub fn encode<'a>(&'a mut self, line: &'a [u8]) -> Result<Encoded<'a>, LineError> {
        let (id, resource_type) = self.read(line).map_err(|refusal| *refusal)?;
        let tree = Tree { source: self.source(line), closed: &self.closed };
        Ok(Encoded { tree, members: &self.pending, id, resource_type, created_at: self.created_at })
    }

    /// Reads the line; returns `id` and `resourceType`, and leaves the other members in `pending`.
    fn read(&mut self, line: &[u8]) -> Result<(Value, Option<Value>), Refusal> {
        if simdutf8::basic::from_utf8(line).is_err() {
            let valid = std::str::from_utf8(line).err().map_or(0, |e| e.valid_up_to());
            return Err(LineError::new(Reason::Encoding, valid).into());
        }
        let searched = if self.to_aidbox.is_some() { NodeId::RESOURCE } else { NodeId::UNKNOWN };
        let found = self.read_as(searched, line.len().saturating_mul(LOOK_AHEAD), line)?;
        if !self.mistaken {
            return Ok(found);
        }
        // Again, with the type that counts, and without converting inner resources.
        let named = found.1.zip(self.to_aidbox.as_ref());
        let node = named.map_or(NodeId::UNKNOWN, |(name, conversion)| conversion.named(name.bytes(self.source(line))));
        self.read_as(node, 0, line)
    }

    /// Reads the line as a resource of structure `node`. At most `look_ahead` bytes are searched for types of resources.
    fn read_as(&mut self, node: NodeId, look_ahead: usize, line: &[u8]) -> Result<(Value, Option<Value>), Refusal> {
        self.clear();
        let mut tokens = Tokens { line, at: 0 };
        match tokens.peek() {
            Some(b'{') => {}
            Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                return Err(tokens.error(Reason::NotAnObject));
            }
            _ => return Err(tokens.syntax("expected a JSON object")),
        }
        let start = tokens.at;
        self.look_ahead = look_ahead;
        self.parse(node, &mut tokens)?;
        if tokens.peek().is_some() {
            return Err(tokens.error(Reason::TrailingData));
        }
        self.take_identity(line, start)
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.pending.clear();
        self.closed.clear();
        // The names that conversions write stay at its start.
        self.arena.truncate(self.to_aidbox.as_ref().map_or(0, |conversion| conversion.definitions.texts.len()));
        self.created_at = None;
        self.mistaken = false;
        self.pending.shrink_to(KEEP_BYTES / size_of::<Entry>());
        self.closed.shrink_to(KEEP_BYTES / size_of::<Entry>());
        self.arena.shrink_to(KEEP_BYTES);
    }

    #[inline]
    fn source<'a>(&'a self, line: &'a [u8]) -> Source<'a> {
        Source { line, arena: &self.arena }
    }

    /// Reads the object at `tokens`, of structure `node`. Leaves its members in `pending`, sorted and distinct.
    fn parse(&mut self, mut node: NodeId, tokens: &mut Tokens<'_>) -> Result<(), Refusal> {
        let mut in_object = false;
        'item: loop {
            // The resource itself, a member or an element.
            let name = if in_object { self.name(tokens)? } else { Name::NONE };
            let (item_node, choice) = match &self.to_aidbox {
                Some(conversion) if in_object && node != NodeId::UNKNOWN => {
                    conversion.member(node, &name, self.source(tokens.line))
                }
                _ if in_object => (NodeId::UNKNOWN, None),
                _ => (node, None),
            };
            match tokens.peek() {
                Some(b'"') => {
                    let value = tokens.string(&mut self.arena)?;
                    self.push_as(name, value, choice)?;
                }
                Some(open @ (b'{' | b'[')) => {
                    in_object = open == b'{';
                    node = self.open(in_object, name, item_node, choice, tokens)?;
                    tokens.at += 1;
                    if tokens.peek() != Some(if in_object { b'}' } else { b']' }) {
                        continue 'item;
                    }
                }
                Some(b'-' | b'0'..=b'9') => {
                    let value = tokens.number(&mut self.arena)?;
                    self.push_as(name, value, choice)?;
                }
                _ => {
                    let strip = in_object && tokens.at < self.strip_before;
                    let value = match tokens.literal()? {
                        // The last member with a name counts, even if it is left out.
                        null if strip && null.kind() == kind::NULL => Value::plain(kind::DROPPED),
                        value => value,
                    };
                    self.push_as(name, value, choice)?;
                }
            }
            // Close what ends here, until the next item starts.
            loop {
                let next = tokens.peek();
                let Some(frame) = self.frames.last() else { return Ok(()) };
                in_object = frame.is_object;
                node = frame.node;
                match (next, in_object) {
                    (Some(b','), _) => {
                        tokens.at += 1;
                        continue 'item;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        tokens.at += 1;
                        self.close(tokens.line)?;
                    }
                    (_, true) => return Err(tokens.syntax("expected ',' or '}'")),
                    (_, false) => return Err(tokens.syntax("expected ',' or ']'")),
                }
            }
        }
    }

    #[inline]
    fn push(&mut self, name: Name, value: Value) -> Result<(), Refusal> {
        if self.pending.len() == self.pending.capacity() {
            self.grow()?;
        }
        self.pending.push(Entry { name, value });
        Ok(())
    }

    /// Adds a member. Splits its name if it is one of a choice: `valueQuantity: q` becomes `value: {Quantity: q}`.
    #[inline]
    fn push_as(&mut self, name: Name, value: Value, choice: Option<&'static Choice>) -> Result<(), Refusal> {
        match choice {
            Some(choice) => self.push_choice(name, value, choice),
            None => self.push(name, value),
        }
    }

    fn push_choice(&mut self, name: Name, value: Value, choice: &Choice) -> Result<(), Refusal> {
        if self.closed.capacity() - self.closed.len() < 2 {
            self.check_size()?;
            self.closed.try_reserve(2)?;
        }
        let wrapped = Value::wrap(self.closed.len());
        // The second entry is not part of the object: it is the original member, in case it must be restored.
        self.closed.extend_from_slice(&[Entry { name: choice.type_name, value }, Entry { name, value }]);
        if let Some(frame) = self.frames.last_mut() {
            frame.has_choices = true;
        }
        self.push(choice.base, wrapped)
    }

    #[cold]
    fn grow(&mut self) -> Result<(), Refusal> {
        self.check_size()?;
        Ok(self.pending.try_reserve(1)?)
    }

    /// Refuses a line that is too large for jsonb before it takes several times as much memory: each entry needs a JEntry,
    /// and the arena will be copied. Called wherever much more memory is about to be used.
    fn check_size(&self) -> Result<(), Refusal> {
        let entries = self.pending.len() + self.closed.len();
        if entries > MAX_ENTRIES - self.arena.len().min(MAX_BYTES) / 4 { Err(Limit::TooLarge.at(0)) } else { Ok(()) }
    }

    /// Reads a member's name and the colon after it.
    #[inline(always)]
    fn name(&mut self, tokens: &mut Tokens<'_>) -> Result<Name, Refusal> {
        if tokens.peek() != Some(b'"') {
            return Err(tokens.syntax("expected a key in double quotes"));
        }
        let text = tokens.string(&mut self.arena)?;
        if tokens.peek() != Some(b':') {
            return Err(tokens.syntax("expected ':' after a key"));
        }
        tokens.at += 1;
        Ok(Name::new(text, self.source(tokens.line)))
    }

    /// Opens a container; returns its structure.
    fn open(
        &mut self,
        is_object: bool,
        name: Name,
        node: NodeId,
        choice: Option<&'static Choice>,
        tokens: &Tokens<'_>,
    ) -> Result<NodeId, Refusal> {
        if self.frames.len() == MAX_DEPTH {
            return Err(tokens.error(Reason::TooDeep));
        }
        let text = || name.bytes(self.source(tokens.line));
        let role = match (self.frames.last().map(|f| f.role), is_object) {
            (None, true) => Role::Resource,
            (Some(Role::Resource), true) if text() == b"meta" => Role::Meta,
            (Some(Role::Meta), false) if text() == b"extension" => Role::MetaExtensions,
            (Some(Role::MetaExtensions), true) => Role::MetaExtension,
            _ => Role::Plain,
        };
        if matches!(role, Role::Meta | Role::MetaExtensions) {
            // A repeated name replaces the earlier member, with the creation time in it.
            self.created_at = None;
        }
        let (mut node, mut is_searched) = (node, false);
        if let Some(conversion) = &self.to_aidbox
            && node == NodeId::RESOURCE
            && is_object
        {
            node = conversion.resource(tokens, role != Role::Resource, &mut self.look_ahead);
            is_searched = node != NodeId::UNKNOWN && !(role == Role::Resource && conversion.is_expected());
        }
        let (first, line_start) = (self.pending.len(), tokens.at);
        self.frames.push(Frame {
            role,
            is_object,
            name,
            first,
            line_start,
            node,
            is_searched,
            choice,
            has_choices: false,
        });
        Ok(node)
    }

    /// Closes the innermost container: its items become one value of the container around it.
    fn close(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let first = frame.first;
        if frame.is_object {
            self.sort(&frame, line)?;
            if self.strip_before > 0 {
                self.drop_stripped(first);
            }
        }
        let dropped = match frame.role {
            Role::Plain => false,
            Role::Resource => return Ok(()),
            Role::Meta => self.close_meta(&frame, line)?,
            // An array that is empty in the line stays.
            Role::MetaExtensions => self.pending.len() == first && self.created_at.is_some(),
            Role::MetaExtension => self.close_meta_extension(&frame, line)?,
        };
        let value = if !dropped {
            let kind = if frame.is_object { kind::OBJECT } else { kind::ARRAY };
            let value = Value::container(kind, self.closed.len(), self.pending.len() - first);
            if self.closed.capacity() - self.closed.len() < value.length() {
                self.check_size()?;
                self.closed.try_reserve(value.length())?;
            }
            self.closed.extend_from_slice(&self.pending[first..]);
            value
        } else if frame.role == Role::MetaExtension {
            self.pending.truncate(first);
            return Ok(());
        } else {
            Value::plain(kind::DROPPED)
        };
        self.pending.truncate(first);
        self.push_as(frame.name, value, frame.choice)
    }

    /// Sorts the members of an object that closes.
    fn sort(&mut self, frame: &Frame, line: &[u8]) -> Result<(), Refusal> {
        let source = Source { line, arena: &self.arena };
        if sort_members(&mut self.pending, frame.first, source) {
            if frame.has_choices {
                ToAidbox::settle_choices(&mut self.pending, frame.first, &mut self.closed, source)?;
                sort_members(&mut self.pending, frame.first, source);
            }
            keep_last_of_each_name(&mut self.pending, frame.first, source);
        }
        if let Some(conversion) = &self.to_aidbox {
            if frame.node == NodeId::REFERENCE {
                conversion.reference(&mut self.pending, frame.first, source);
            } else if frame.is_searched {
                self.mistaken |= !conversion.is_of_type(frame.node, &self.pending[frame.first..], source);
            }
        }
        Ok(())
    }

    #[cold]
    fn drop_stripped(&mut self, first: usize) {
        let is_dropped = |value: Value| value.kind() == kind::DROPPED;
        let mut kept = first;
        for at in first..self.pending.len() {
            let value = self.pending[at].value;
            let of_choice = value.wrapped().map(|wrapped| self.closed[wrapped].value);
            if !is_dropped(value) && !of_choice.is_some_and(is_dropped) {
                self.pending[kept] = self.pending[at];
                kept += 1;
            }
        }
        self.pending.truncate(kept);
    }
}
