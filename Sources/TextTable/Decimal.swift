// SPDX-License-Identifier: Apache-2.0
//
// Numbers as people read them.

/// A number with so many decimals, 0 to 9; one that is too large for that as Swift prints it.
public func decimal(_ number: Double, places: Int = 2) -> String {
    let scale = (0..<places).reduce(1.0) { product, _ in product * 10 }
    guard abs(number) * scale < 9e15 else { return "\(number)" }
    let scaled = Int((abs(number) * scale).rounded())
    let sign = number < 0 && scaled > 0 ? "-" : ""
    guard places > 0 else { return "\(sign)\(scaled)" }
    let digits = "\(scaled)"
    let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
    return "\(sign)\(padded.dropLast(places)).\(padded.suffix(places))"
}
