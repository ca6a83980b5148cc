// SPDX-License-Identifier: Apache-2.0
//
// Delta debugging: fewer operations that still fail.

/// Leaves out operations while a run goes on failing.
///
/// - Parameters:
///   - positions: of the operations of a run that fails.
///   - mayGoOn: whether there is time for one more try.
///   - fails: whether the run with only these operations fails.
/// - Returns: the fewest that were found to fail.
public func shrink(_ positions: [Int], while mayGoOn: () -> Bool, _ fails: ([Int]) -> Bool) -> [Int] {
    var kept = positions
    var size = (kept.count + 1) / 2
    while size >= 1 {
        var (start, left) = (0, false)
        while start < kept.count, mayGoOn() {
            let shorter = Array(kept[..<start] + kept[min(start + size, kept.count)...])
            if fails(shorter) {
                kept = shorter
                left = true
            } else {
                start += size
            }
        }
        guard mayGoOn() else { break }
        // Once more at this size while that helps: what was left out may have been what another one needed.
        if !left || size == 1 && kept.count <= 1 { size = size == 1 ? 0 : (size + 1) / 2 }
    }
    return kept
}
