//! Archives of `torch.save`: what is read of them, and that a pickle can do nothing but describe tensors.

use weblora::formats::{pickle, zip};

/// An archive with this program and one storage of numbers.
fn archive(program: &[u8], storage: &[u8]) -> Vec<u8> {
    let files = [("x/data.pkl".to_owned(), program), ("x/data/0".to_owned(), storage), ("x/version".to_owned(), &b"3\n"[..])];
    zip::write("x", &files, 64).unwrap()
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn int(number: i32) -> Vec<u8> {
    [&b"J"[..], &number.to_le_bytes()].concat()
}

fn tuple(numbers: &[i32]) -> Vec<u8> {
    [b"(".to_vec(), numbers.iter().flat_map(|n| int(*n)).collect(), b"t".to_vec()].concat()
}

/// A tensor of a storage of `numel` numbers.
fn tensor(class: &str, numel: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        format!("ctorch\n{class}\n").into_bytes(),
        text("0"),
        text("cpu"),
        int(numel),
        b"tQ".to_vec(),
        int(offset),
        tuple(shape),
        tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

/// A dictionary with one item.
fn one(name: &str, value: &[u8]) -> Vec<u8> {
    [&b"\x80\x02}"[..], &text(name), value, b"s."].concat()
}

fn floats(count: u16) -> Vec<u8> {
    (0..count).flat_map(|i| f32::from(i).to_le_bytes()).collect()
}

#[track_caller]
fn refused(program: &[u8], words: &[&str]) {
    let error = pickle::read("x", &archive(program, &floats(6))).unwrap_err().to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "{error} does not say {word:?}"));
}

#[test]
fn strided_tensors_are_put_in_order() {
    let read = |offset, shape: &[i32], strides: &[i32]| {
        let archive = archive(&one("t", &tensor("FloatStorage", 6, offset, shape, strides)), &floats(6));
        let tensors = pickle::read("x", &archive).unwrap();
        (tensors[0].shape.clone(), tensors[0].format.decode_vec(&tensors[0].bytes))
    };
    assert_eq!(read(0, &[2, 3], &[3, 1]), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    assert_eq!(read(0, &[3, 2], &[1, 3]).1, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(read(1, &[2, 2], &[2, 2]).1, [1.0, 3.0, 3.0, 5.0]);
    assert_eq!(read(5, &[1, 1], &[77, 99]).1, [5.0]);
    assert_eq!(read(2, &[], &[]), (vec![], vec![2.0]));
    assert_eq!(read(0, &[0, i32::MAX], &[1, 1]), (vec![0, i32::MAX as usize], vec![]));
    assert_eq!(read(0, &[2, 3], &[0, 1]).1, [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
}

#[test]
fn tensors_stay_in_their_storage() {
    let wrong = |offset, shape: &[i32], strides: &[i32]| refused(&one("t", &tensor("FloatStorage", 6, offset, shape, strides)), &["`t`"]);
    wrong(1, &[2, 3], &[3, 1]);
    wrong(0, &[2, 3], &[4, 1]);
    wrong(7, &[], &[]);
    wrong(0, &[i32::MAX; 8], &[i32::MAX; 8]);
    wrong(0, &[7], &[0]); // more numbers than the storage has
    for (numel, class) in [(5, "FloatStorage"), (6, "HalfStorage"), (i32::MAX, "FloatStorage")] {
        refused(&one("t", &tensor(class, numel, 0, &[1], &[1])), &["storage", "numbers in 24 bytes"]);
    }
    refused(&one("t", &tensor("FloatStorage", -1, 0, &[1], &[1])), &["-1"]);
    refused(&one("t", &tensor("FloatStorage", 6, 0, &[-1], &[1])), &["-1"]);
    refused(&one("t", &tensor("FloatStorage", 6, 0, &[1; 9], &[1; 9])), &["9 dimensions"]);
    refused(&one("t", &tensor("FloatStorage", 6, 0, &[1, 1], &[1])), &["arguments"]);
    // Many tensors of one storage would be more numbers than the file has.
    let each = tensor("FloatStorage", 6, 0, &[6], &[1]);
    let two = [&b"\x80\x02}("[..], &text("a"), &each, &text("b"), &each, b"u."].concat();
    refused(&two, &["`b`", "shares"]);
}

#[test]
fn a_pickle_calls_nothing() {
    let call =
        |module: &str, name: &str| one("t", &[format!("c{module}\n{name}\n(").into_bytes(), text("touch x"), b"tR".to_vec()].concat());
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch", "FloatStorage.__init__"),
        ("collections", "OrderedDict\0"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        refused(&call(module, name), &[&format!("{module}.{name}"), "no part of a tensor"]);
    }
    // The allowed names with other arguments.
    refused(&call("torch", "FloatStorage"), &["arguments"]);
    refused(&call("torch._utils", "_rebuild_tensor_v2"), &["arguments"]);
    refused(&call("torch._utils", "_rebuild_parameter"), &["arguments"]);
    refused(&call("collections", "OrderedDict"), &["arguments"]);
    // Instructions that make objects of classes, or read what protocol 2 of torch.save never writes.
    for opcode in
        [b'i', b'o', 0x81, 0x92, 0x93, 0x94, 0x82, b'P', b'F', b'I', b'S', b'V', b'0', b'1', b'2', b'd', b'l', b']', b'e', b'G', 0xff]
    {
        refused(&[b"\x80\x02}", &[opcode][..], b"."].concat(), &[&format!("{opcode:#04x}")]);
    }
}

#[test]
fn programs_that_make_no_sense_end() {
    for program in [
        &b""[..],
        b"\x80",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x04}.",
        b"}.",
        b"\x80\x02\x80\x02}.",
        b"\x80\x02}(u",
        b"\x80\x02}(Nu.",
        b"\x80\x02u.",
        b"\x80\x02s.",
        b"\x80\x02R.",
        b"\x80\x02Q.",
        b"\x80\x02b.",
        b"\x80\x02}NNs.",
        b"\x80\x02N.",
        b"\x80\x02(}(\x86.",
        b"\x80\x02}h\x07.",
        b"\x80\x02q\x00.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"\x80\x02\x8a\xff.",
        b"\x80\x02\x8a\x09123456789.",
        b"\x80\x02ctorch\n",
        b"\x80\x02NNs.",
        b"\x80\x02}}}b.",
    ] {
        assert!(pickle::read("x", &archive(program, &floats(6))).is_err(), "{program:?}");
    }
    // A dictionary that holds itself, or a tensor under its own name twice.
    refused(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", &["`a` is no tensor"]);
    let each = tensor("FloatStorage", 6, 0, &[3], &[1]);
    refused(&[&b"\x80\x02}("[..], &text("a"), &each, &text("a"), &each, b"u."].concat(), &["`a` is there twice"]);
    // Deep nesting is as flat as everything.
    let deep = [&b"\x80\x02}"[..], &text("a"), b")", &b"\x85".repeat(1_000_000), b"s."].concat();
    refused(&deep, &["`a` is no tensor"]);
}

#[test]
fn archives_of_other_kinds_are_named() {
    let named = |files: &[(&str, &[u8])], words: &str| {
        let files: Vec<(String, &[u8])> = files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        let error = pickle::read("x", &zip::write("x", &files, 1).unwrap()).unwrap_err().to_string();
        assert!(error.contains(words), "{error} does not say {words:?}");
    };
    named(&[("readme.txt", b"hello")], "no data.pkl");
    named(&[("x/data.pkl", &one("t", &tensor("FloatStorage", 6, 0, &[6], &[1])))], "which is not there");
    named(&[("x/data.pkl", b"\x80\x02}."), ("x/byteorder", b"big")], "big-endian");
    assert!(pickle::read("x", b"PK\x03\x04").is_err() && !pickle::is_archive(b"\x80\x02}."));
}

#[test]
fn what_is_written_is_read() {
    let values: Vec<f32> = (0..35).map(|i| i as f32 - 0.5).collect();
    let tensors =
        [("a.weight".to_owned(), vec![5, 7], &values[..]), ("b".to_owned(), vec![3], &values[..3]), ("c".to_owned(), vec![], &values[..1])];
    let archive = pickle::write("x", &tensors).unwrap();
    let read = pickle::read("x", &archive).unwrap();
    for (found, (name, shape, values)) in read.iter().zip(&tensors) {
        assert_eq!((&found.name, &found.shape), (name, shape));
        assert_eq!(found.format.decode_vec(&found.bytes), *values);
    }
    assert_eq!(read.len(), tensors.len());
    for cut in (0..archive.len()).step_by(7) {
        assert!(pickle::read("x", &archive[..cut]).is_err(), "cut at {cut}");
    }
}
