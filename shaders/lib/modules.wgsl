// The table of parallel modules, as kernels/multilora.rs writes it. The kernel binds `table: array<u32>` and `p.first`.
//
//   table: 12 words a (site, job): [Bt offset, scale offset, effective offset, grad Bt offset, grad scale offset, outputs, rank, modules,
//                                   job, 0, 0, 0]
// The gradients' offsets are NO_GRADIENT where nothing trains. Rows that are not used are zero.

const NO_GRADIENT: u32 = 0xffffffffu;

struct Modules {
    b: u32,
    scale: u32,
    effective: u32,
    grad_b: u32,
    grad_scale: u32,
    outputs: u32,
    rank: u32,
    modules: u32,
    job: u32,
}

fn load_modules(row: u32) -> Modules {
    let at = 12u * (p.first + row);
    return Modules(
        table[at], table[at + 1u], table[at + 2u], table[at + 3u], table[at + 4u], table[at + 5u], table[at + 6u], table[at + 7u], table[at + 8u]);
}
