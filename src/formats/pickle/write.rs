//! Tensors as `torch.save` writes a dictionary of them, so that `torch.load(…, weights_only=True)` reads it.

use super::opcodes::*;
use crate::error::Result;
use crate::formats::zip;

/// Folder of the archive.
const FOLDER: &str = "adapter_model";
/// PyTorch maps storages into memory where they begin at such places.
const ALIGN: usize = 64;
/// Version of the archive's layout that PyTorch has had since 1.6.
const VERSION: &[u8] = b"3\n";

/// The file with these f32 tensors: name, sizes, numbers row after row.
///
/// # Errors
/// When it would have more than 4 GiB.
pub fn write(file: &str, tensors: &[(String, Vec<usize>, &[f32])]) -> Result<Vec<u8>> {
    let mut program = vec![PROTO, 2, EMPTY_DICT, MARK];
    for (number, (name, shape, values)) in tensors.iter().enumerate() {
        text(&mut program, name);
        global(&mut program, "torch._utils", "_rebuild_tensor_v2");
        program.extend([MARK, MARK]);
        text(&mut program, "storage");
        global(&mut program, "torch", "FloatStorage");
        text(&mut program, &number.to_string());
        text(&mut program, "cpu");
        int(&mut program, values.len());
        program.extend([TUPLE, BINPERSID]);
        int(&mut program, 0);
        let strides = (0..shape.len()).map(|i| shape[i + 1..].iter().product());
        for sizes in [shape.clone(), strides.collect()] {
            program.push(MARK);
            sizes.into_iter().for_each(|size| int(&mut program, size));
            program.push(TUPLE);
        }
        program.push(NEWFALSE);
        global(&mut program, "collections", "OrderedDict");
        program.extend([EMPTY_TUPLE, REDUCE, TUPLE, REDUCE]);
    }
    program.extend([SETITEMS, STOP]);
    let name = |name: &str| format!("{FOLDER}/{name}");
    let mut files = vec![(name("data.pkl"), program.as_slice()), (name("byteorder"), &b"little"[..])];
    let storages = tensors.iter().enumerate();
    // Files are little-endian, as is every machine that wgpu runs on.
    files.extend(storages.map(|(number, (_, _, values))| (name(&format!("data/{number}")), bytemuck::cast_slice(values))));
    files.push((name("version"), VERSION));
    zip::write(file, &files, ALIGN)
}

fn text(program: &mut Vec<u8>, text: &str) {
    program.push(BINUNICODE);
    program.extend((text.len() as u32).to_le_bytes());
    program.extend(text.as_bytes());
}

fn global(program: &mut Vec<u8>, module: &str, name: &str) {
    program.push(GLOBAL);
    program.extend(format!("{module}\n{name}\n").as_bytes());
}

/// Eight bytes, whatever the number.
fn int(program: &mut Vec<u8>, number: usize) {
    program.extend([LONG1, 8]);
    program.extend((number as u64).to_le_bytes());
}
