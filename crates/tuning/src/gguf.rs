//! GGUF files: a model's numbers read as `f32`, an adapter's written, and a model copied with some of its numbers changed.
//!
//! The format is ggml's (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), the layouts of quantized blocks are those of its `ggml-quants.c`.

mod quants;

use quants::Format;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 4] = b"GGUF";
/// Tensors begin at multiples of it where the file names no other number.
const ALIGNMENT: u64 = 32;
/// Longest text of the metadata that is read; chat templates are a few thousand bytes.
const LONGEST_TEXT: u64 = 64 << 20;
/// Magic, version, number of tensors, number of values.
const HEAD_BYTES: u64 = 24;
/// Numbers and bytes that are copied at once.
const AT_ONCE: usize = 1 << 20;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Whole(u64),
    Number(f64),
    Text(String),
    /// A list; its items are not kept.
    List,
}

/// How the changed matrices of a copy are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MergedPrecision {
    /// ggml's `F16`: nothing that matters is lost.
    #[default]
    Half,
    /// ggml's `Q8_0`, eight and a half bits a number: about half the size, and as quick as a base of four bits. Matrices whose rows are no multiple of 32 long are in half precision.
    Eight,
}

impl MergedPrecision {
    fn of(self, dimensions: &[u64]) -> Format {
        match self {
            Self::Eight if dimensions.first().is_some_and(|row| row.is_multiple_of(32)) => Format::Q8_0,
            _ => Format::F16,
        }
    }

    /// llama.cpp's `general.file_type` of a file that is mostly this.
    fn file_type(self) -> u32 {
        match self {
            Self::Half => 1,
            Self::Eight => 7,
        }
    }
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone)]
struct Place {
    /// Innermost dimension first, as GGUF writes them.
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    file: BufReader<File>,
    metadata: HashMap<String, Value>,
    tensors: HashMap<String, Place>,
    version: u32,
    /// Values of the metadata, and where they end; they begin behind the head.
    values: u64,
    values_end: u64,
    /// Where the number of `general.file_type` stands.
    file_type_at: Option<u64>,
    alignment: u64,
    data_starts: u64,
}

fn bad(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, reason.into())
}

impl Gguf {
    /// Reads the head of a file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; 4];
        file.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(bad("this is no GGUF file"));
        }
        let version = read_u32(&mut file)?;
        if !(2..=3).contains(&version) {
            return Err(bad(format!("GGUF version {version} is not known")));
        }
        let (tensor_count, value_count) = (read_u64(&mut file)?, read_u64(&mut file)?);
        let mut metadata = HashMap::new();
        let mut file_type_at = None;
        for _ in 0..value_count {
            let name = read_text(&mut file)?;
            let kind = read_u32(&mut file)?;
            if name == "general.file_type" && kind == 4 {
                file_type_at = Some(file.stream_position()?);
            }
            metadata.insert(name, read_value(&mut file, kind)?);
        }
        let values_end = file.stream_position()?;
        let mut tensors = HashMap::new();
        for _ in 0..tensor_count {
            let name = read_text(&mut file)?;
            let count = read_u32(&mut file)?;
            if count > 4 {
                return Err(bad(format!("tensor `{name}` has {count} dimensions")));
            }
            let dimensions = (0..count).map(|_| read_u64(&mut file)).collect::<Result<Vec<_>>>()?;
            let (kind, offset) = (read_u32(&mut file)?, read_u64(&mut file)?);
            tensors.insert(name, Place { dimensions, kind, offset });
        }
        let alignment = match metadata.get("general.alignment") {
            Some(&Value::Whole(alignment)) if alignment > 0 => alignment,
            _ => ALIGNMENT,
        };
        let data_starts = file.stream_position()?.next_multiple_of(alignment);
        let path = path.to_owned();
        Ok(Self { path, file, metadata, tensors, version, values: value_count, values_end, file_type_at, alignment, data_starts })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn whole(&self, name: &str) -> Option<usize> {
        match self.metadata.get(name) {
            Some(&Value::Whole(value)) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        match self.metadata.get(name) {
            Some(&Value::Number(value)) => Some(value),
            Some(&Value::Whole(value)) => Some(value as f64),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.metadata.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Dimensions with the outermost first: `[rows, columns]` of a matrix.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let place = self.tensors.get(name)?;
        place.dimensions.iter().rev().map(|&size| usize::try_from(size).ok()).collect()
    }

    /// A tensor's numbers, row by row.
    pub(crate) fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let place = self.tensors.get(name).ok_or_else(|| bad(format!("there is no tensor `{name}`")))?.clone();
        let format = Format::new(place.kind).ok_or_else(|| bad(format!("tensor `{name}` is of kind {}, which is not read", place.kind)))?;
        let count = place.dimensions.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        let count = count.and_then(|count| usize::try_from(count).ok()).ok_or_else(|| bad(format!("tensor `{name}` is too large")))?;
        if !count.is_multiple_of(format.block_values()) {
            return Err(bad(format!("tensor `{name}` is no whole number of blocks")));
        }
        let bytes = count / format.block_values() * format.block_bytes();
        let end = self.data_starts.saturating_add(place.offset).saturating_add(bytes as u64);
        if end > self.file.get_ref().metadata()?.len() {
            return Err(bad(format!("tensor `{name}` lies beyond the end of the file")));
        }
        self.file.seek(SeekFrom::Start(self.data_starts + place.offset))?;
        let mut data = vec![0; bytes];
        self.file.read_exact(&mut data)?;
        let mut values = vec![0.0; count];
        for (block, out) in data.chunks_exact(format.block_bytes()).zip(values.chunks_exact_mut(format.block_values())) {
            format.expand(block, out);
        }
        Ok(values)
    }

    /// Writes a copy in which the `changed` tensors have other numbers, in another `precision`. Everything else is copied byte for byte, the metadata with its vocabulary included
    /// (only `general.file_type` says the new precision). `change` is given a tensor's numbers row by row. One tensor is in memory at a time.
    pub(crate) fn copy_changed(
        &mut self,
        path: &Path,
        changed: &BTreeSet<&str>,
        precision: MergedPrecision,
        change: &dyn Fn(&str, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let mut places: Vec<(String, Place)> = self.tensors.iter().map(|(name, place)| (name.clone(), place.clone())).collect();
        places.sort_by_key(|(_, place)| place.offset);
        // What a tensor takes, with the padding behind it: so kinds that are not read here are copied as well.
        let data = self.file.get_ref().metadata()?.len().saturating_sub(self.data_starts);
        let ends: Vec<u64> = places.iter().skip(1).map(|(_, place)| place.offset).chain([data]).collect();
        let sizes = places.iter().zip(&ends).map(|((name, place), end)| match changed.contains(name.as_str()) {
            true => {
                let format = precision.of(&place.dimensions);
                (place.dimensions.iter().product::<u64>() / format.block_values() as u64).saturating_mul(format.block_bytes() as u64)
            }
            false => end.saturating_sub(place.offset),
        });
        let sizes: Vec<u64> = sizes.collect();
        let mut out = BufWriter::new(File::create(path)?);
        let head = self.changed_head(&places, &sizes, changed, precision)?;
        out.write_all(&head)?;
        let mut written = head.len() as u64;
        for ((name, place), size) in places.iter().zip(&sizes) {
            let padding = written.next_multiple_of(self.alignment) - written;
            out.write_all(&vec![0; usize::try_from(padding).unwrap_or(0)])?;
            if changed.contains(name.as_str()) {
                let mut values = self.read(name)?;
                change(name, &mut values)?;
                let put = if precision.of(&place.dimensions) == Format::Q8_0 { quants::eights } else { quants::halves };
                let mut bytes = Vec::new();
                for values in values.chunks(AT_ONCE) {
                    bytes.clear();
                    put(values, &mut bytes);
                    out.write_all(&bytes)?;
                }
            } else {
                self.file.seek(SeekFrom::Start(self.data_starts + place.offset))?;
                if std::io::copy(&mut self.file.by_ref().take(*size), &mut out)? != *size {
                    return Err(bad(format!("tensor `{name}` lies beyond the end of the file")));
                }
            }
            written += padding + size;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }

    /// The head of a changed copy, up to its data.
    fn changed_head(
        &mut self,
        places: &[(String, Place)],
        sizes: &[u64],
        changed: &BTreeSet<&str>,
        precision: MergedPrecision,
    ) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&self.version.to_le_bytes());
        head.extend_from_slice(&(places.len() as u64).to_le_bytes());
        head.extend_from_slice(&self.values.to_le_bytes());
        self.file.seek(SeekFrom::Start(HEAD_BYTES))?;
        self.file.by_ref().take(self.values_end - HEAD_BYTES).read_to_end(&mut head)?;
        if let Some(at) = self.file_type_at.and_then(|at| usize::try_from(at).ok()).filter(|at| at + 4 <= head.len()) {
            head[at..at + 4].copy_from_slice(&precision.file_type().to_le_bytes());
        }
        let mut offset = 0u64;
        for ((name, place), size) in places.iter().zip(sizes) {
            put_text(&mut head, name);
            head.extend_from_slice(&u32::try_from(place.dimensions.len()).unwrap_or_default().to_le_bytes());
            place.dimensions.iter().for_each(|size| head.extend_from_slice(&size.to_le_bytes()));
            let kind = if changed.contains(name.as_str()) { precision.of(&place.dimensions).kind() } else { place.kind };
            head.extend_from_slice(&kind.to_le_bytes());
            head.extend_from_slice(&offset.to_le_bytes());
            offset = (offset + size).next_multiple_of(self.alignment);
        }
        Ok(head)
    }
}

fn put_text(head: &mut Vec<u8>, text: &str) {
    head.extend_from_slice(&(text.len() as u64).to_le_bytes());
    head.extend_from_slice(text.as_bytes());
}

fn read_u32(from: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_u64(from: &mut impl Read) -> Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn read_text(from: &mut impl Read) -> Result<String> {
    let length = read_u64(from)?;
    if length > LONGEST_TEXT {
        return Err(bad(format!("a text of {length} bytes in the metadata")));
    }
    let mut bytes = Vec::new();
    from.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(bad("the file ends in its metadata"));
    }
    String::from_utf8(bytes).or_else(|error| Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Kinds 0 to 12 of the format: integers and floats of several widths, 7 a bool, 8 a text, 9 a list.
fn read_value(from: &mut impl Read, kind: u32) -> Result<Value> {
    let mut bytes = [0; 8];
    let mut fixed = |width: usize, from: &mut dyn Read| -> Result<u64> {
        bytes.fill(0);
        from.read_exact(&mut bytes[..width])?;
        Ok(u64::from_le_bytes(bytes))
    };
    Ok(match kind {
        0 | 1 | 7 => Value::Whole(fixed(1, from)?),
        2 | 3 => Value::Whole(fixed(2, from)?),
        4 | 5 => Value::Whole(fixed(4, from)?),
        10 | 11 => Value::Whole(fixed(8, from)?),
        6 => Value::Number(f64::from(f32::from_bits(fixed(4, from)? as u32))),
        12 => Value::Number(f64::from_bits(fixed(8, from)?)),
        8 => Value::Text(read_text(from)?),
        9 => {
            let (inner, count) = (read_u32(from)?, read_u64(from)?);
            if inner == 9 {
                return Err(bad("a list of lists in the metadata"));
            }
            for _ in 0..count {
                read_value(from, inner)?;
            }
            Value::List
        }
        _ => return Err(bad(format!("a value of kind {kind} in the metadata"))),
    })
}

/// A tensor to be written: its name, its shape with the outermost dimension first, its numbers.
pub(crate) struct Tensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: [usize; 2],
    pub(crate) values: &'a [f32],
}

/// Writes a file of `f32` tensors; whole numbers are written as `u32`, other numbers as `f32`.
pub(crate) fn write(path: &Path, metadata: &[(&str, Value)], tensors: &[Tensor<'_>]) -> Result<()> {
    let mut head = Vec::new();
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&3u32.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (name, value) in metadata {
        put_text(&mut head, name);
        match value {
            Value::Whole(value) => {
                head.extend_from_slice(&4u32.to_le_bytes());
                head.extend_from_slice(&u32::try_from(*value).map_err(|_| bad(format!("`{name}` is too large")))?.to_le_bytes());
            }
            Value::Number(value) => {
                head.extend_from_slice(&6u32.to_le_bytes());
                head.extend_from_slice(&(*value as f32).to_le_bytes());
            }
            Value::Text(value) => {
                head.extend_from_slice(&8u32.to_le_bytes());
                put_text(&mut head, value);
            }
            Value::List => return Err(bad("lists are not written")),
        }
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&mut head, &tensor.name);
        head.extend_from_slice(&2u32.to_le_bytes());
        for size in tensor.shape.iter().rev() {
            head.extend_from_slice(&(*size as u64).to_le_bytes());
        }
        head.extend_from_slice(&0u32.to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        offset = (offset + tensor.values.len() as u64 * 4).next_multiple_of(ALIGNMENT);
    }
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&head)?;
    let mut written = head.len() as u64;
    for tensor in tensors {
        let padding = written.next_multiple_of(ALIGNMENT) - written;
        file.write_all(&vec![0; padding as usize])?;
        for value in tensor.values {
            file.write_all(&value.to_le_bytes())?;
        }
        written += padding + tensor.values.len() as u64 * 4;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let metadata = [("a", Value::Text("words".into())), ("b", Value::Whole(7)), ("c", Value::Number(0.5))];
        let (first, second) = ([1.0, -2.0, 3.5, 0.0, 5.0, 6.0], [0.25; 3]);
        let tensors =
            [Tensor { name: "one".into(), shape: [2, 3], values: &first }, Tensor { name: "two".into(), shape: [3, 1], values: &second }];
        write(&path, &metadata, &tensors).unwrap();
        let mut file = Gguf::open(&path).unwrap();
        assert_eq!((file.text("a"), file.whole("b"), file.number("c")), (Some("words"), Some(7), Some(0.5)));
        assert_eq!((file.shape("one"), file.shape("two"), file.shape("three")), (Some(vec![2, 3]), Some(vec![3, 1]), None));
        assert_eq!((file.read("one").unwrap(), file.read("two").unwrap()), (first.to_vec(), second.to_vec()));
    }

    #[test]
    fn a_changed_copy_differs_where_it_was_changed_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("x.gguf"), folder.path().join("y.gguf"));
        let metadata = [("general.architecture", Value::Text("words".into())), ("general.file_type", Value::Whole(3))];
        let (first, second, third) = ([1.0, -2.0, 3.5, 0.0, 5.0, 6.0], [0.1, 0.2, 0.3], [7.0; 5]);
        fn tensor<'a>(name: &str, shape: [usize; 2], values: &'a [f32]) -> Tensor<'a> {
            Tensor { name: name.to_owned(), shape, values }
        }
        write(&path, &metadata, &[tensor("one", [2, 3], &first), tensor("two", [3, 1], &second), tensor("three", [1, 5], &third)]).unwrap();
        let mut file = Gguf::open(&path).unwrap();
        let double = |name: &str, values: &mut [f32]| {
            assert_eq!(name, "two");
            values.iter_mut().for_each(|value| *value *= 2.0);
            Ok(())
        };
        file.copy_changed(&copy, &["two"].into(), MergedPrecision::Half, &double).unwrap();
        let mut copied = Gguf::open(&copy).unwrap();
        assert_eq!((copied.text("general.architecture"), copied.whole("general.file_type")), (Some("words"), Some(1)));
        assert_eq!((copied.read("one").unwrap(), copied.read("three").unwrap()), (first.to_vec(), third.to_vec()));
        assert_eq!(copied.shape("two"), Some(vec![3, 1]));
        for (found, wanted) in copied.read("two").unwrap().into_iter().zip([0.2, 0.4, 0.6f32]) {
            // Half of the last of eleven bits.
            assert!((found - wanted).abs() <= wanted / 2048.0, "{found} for {wanted}");
        }
    }

    #[test]
    fn in_eight_bits_a_number_is_off_by_half_a_step_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("x.gguf"), folder.path().join("y.gguf"));
        let values: Vec<f32> = (0..192).map(|at| ((at * 37 % 101) as f32 - 50.0) * 0.013).collect();
        let zeros = [0.0; 64];
        let tensor = |name: &str, shape, values| Tensor { name: name.to_owned(), shape, values };
        let tensors = [
            tensor("zeros", [2, 32], &zeros),
            tensor("blocks", [2, 96], &values),
            tensor("short", [3, 24], &values[..72]),
            tensor("last", [1, 5], &values[..5]),
        ];
        write(&path, &[("general.file_type", Value::Whole(3))], &tensors).unwrap();
        Gguf::open(&path)
            .unwrap()
            .copy_changed(&copy, &["zeros", "blocks", "short"].into(), MergedPrecision::Eight, &|_, _| Ok(()))
            .unwrap();
        let mut copied = Gguf::open(&copy).unwrap();
        assert_eq!((copied.whole("general.file_type"), copied.read("zeros").unwrap()), (Some(7), zeros.to_vec()));
        assert_eq!(copied.read("last").unwrap(), values[..5], "what was not named stays in full");
        let half_a_step = |block: &[f32]| block.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0 * 0.5;
        let blocks = copied.read("blocks").unwrap();
        for (found, wanted) in blocks.chunks(32).zip(values.chunks(32)) {
            // The step itself is in half precision.
            let bound = half_a_step(wanted) * 1.15;
            assert!(found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() <= bound), "{found:?} for {wanted:?}");
        }
        assert!(blocks != values, "eight bits lose something");
        // Rows of 24 numbers are no whole blocks.
        assert!(copied.read("short").unwrap().iter().zip(&values).all(|(found, wanted)| (found - wanted).abs() <= wanted.abs() / 2048.0));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let values = [1.0; 6];
        write(&path, &[("a", Value::Text("words".into()))], &[Tensor { name: "one".into(), shape: [2, 3], values: &values }]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Gguf::open(&path).and_then(|mut file| file.read("one")).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
