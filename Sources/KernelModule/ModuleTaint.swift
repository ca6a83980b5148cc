// SPDX-License-Identifier: Apache-2.0
//
// What loading a module says about the kernel from then on.

/// A mark that a module puts on the kernel (Documentation/admin-guide/tainted-kernels.rst).
public enum ModuleTaint: Sendable, Hashable, CustomStringConvertible {
    /// P: the module's licence is not one that the kernel calls free.
    case proprietary
    /// O: built outside the kernel's tree.
    case outOfTree
    /// F: loaded by force.
    case forced
    /// C: from drivers/staging.
    case staging
    /// E: not signed, or not with a key that the kernel has.
    case unsigned
    /// K: a live patch.
    case livePatch
    /// N: a test module.
    case test
    /// A letter that this library does not know.
    case other(Character)

    /// Takes the letter that /sys/module/NAME/taint shows.
    public init(letter: Character) {
        self =
            switch letter {
            case "P": .proprietary
            case "O": .outOfTree
            case "F": .forced
            case "C": .staging
            case "E": .unsigned
            case "K": .livePatch
            case "N": .test
            default: .other(letter)
            }
    }

    /// The mark in words.
    public var description: String {
        switch self {
        case .proprietary: "proprietary"
        case .outOfTree: "out of tree"
        case .forced: "forced"
        case .staging: "staging"
        case .unsigned: "unsigned"
        case .livePatch: "live patch"
        case .test: "test"
        case .other(let letter): "taint \(letter)"
        }
    }
}
