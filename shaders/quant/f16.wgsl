// f16: four vectors a unit, two inputs a word.
const GROUP: u32 = 8u;
struct Group { at: u32 }
fn quant_group(quad: u32, g: u32) -> Group { return Group((quad * octets() + g) * 4u); }
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  let a = w[d.at];
  let b = w[d.at + 1u];
  let c = w[d.at + 2u];
  let e = w[d.at + 3u];
  return Tile(first_halves(a), second_halves(a), first_halves(b), second_halves(b), first_halves(c), second_halves(c), first_halves(e), second_halves(e));
}
