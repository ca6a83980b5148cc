// SPDX-License-Identifier: Apache-2.0
//
// Bytes from a hostile kernel or process: at random, or right ones with something wrong.

package import SeededRandom
import SystemPackage

/// Seeds for a fuzz test: two that are always the same, and one of this run's own.
package let fuzzSeeds: [UInt64] = [1, 2, .random(in: 3...(.max))]

/// Prints the seed of a test, before anything else: a trap ends the process, and standard error is not buffered.
package func announce(_ seed: UInt64, of test: String) {
    _ = try? FileDescriptor.standardError.writeAll("seed of \(test): \(seed)\n".utf8)
}

/// Up to `most` bytes: of any value, or such as the text around has.
package func randomBytes(upTo most: Int, using random: inout SeededGenerator) -> [UInt8] {
    let count = Int.random(in: 0...most, using: &random)
    let isText = Bool.random(using: &random)
    let alphabet = Array("0123456789 -+.:=,[]()\n\t\0\u{1b}xXabLOSTCPUkvm_user/%e\u{e9}".utf8)
    return (0..<count).map { _ in
        isText ? alphabet.randomElement(using: &random) ?? 0 : .random(in: 0...255, using: &random)
    }
}

/// The bytes with one to eight things wrong: bits, numbers at an edge, parts that are missing, doubled or moved.
package func mutated(_ bytes: [UInt8], using random: inout SeededGenerator) -> [UInt8] {
    var bytes = bytes
    for _ in 0..<Int.random(in: 1...8, using: &random) { mutate(&bytes, using: &random) }
    return bytes
}

private func mutate(_ bytes: inout [UInt8], using random: inout SeededGenerator) {
    let position = Int.random(in: 0...bytes.count, using: &random)
    let end = Int.random(in: position...bytes.count, using: &random)
    switch Int.random(in: 0..<7, using: &random) {
    case 0 where position < bytes.count: bytes[position] ^= 1 << UInt8.random(in: 0..<8, using: &random)
    case 1 where position < bytes.count: bytes[position] = .random(in: 0...255, using: &random)
    case 2: bytes.removeSubrange(position..<end)
    case 3: bytes.insert(contentsOf: bytes[position..<end].prefix(4096), at: position)
    case 4: bytes.removeSubrange(position...)
    case 5: bytes.insert(contentsOf: randomBytes(upTo: 16, using: &random), at: position)
    default: bytes.replaceSubrange(position..<min(end, position + 20), with: edge(using: &random))
    }
}

/// A number, as text, that is the last or the first after the last of some width.
private func edge(using random: inout SeededGenerator) -> [UInt8] {
    let numbers = [
        "0", "-1", "+1", "00", "127", "128", "255", "256", "32767", "32768", "65535", "65536", "2147483647",
        "2147483648", "-2147483648", "-2147483649", "4294967295", "4294967296", "9223372036854775807",
        "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
        "18446744073709551616", "340282366920938463463374607431768211456", "0x", "0xffffffffffffffff", "1e9", "nan",
        "٣",
    ]
    return Array((numbers.randomElement(using: &random) ?? "0").utf8)
}
