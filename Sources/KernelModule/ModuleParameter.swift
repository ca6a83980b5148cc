// SPDX-License-Identifier: Apache-2.0
//
// A parameter given to a module at load, and a parameter that a module says it takes.

import SystemPackage

/// A `name=value` for a module at load.
public struct ModuleParameter: Sendable, Hashable, CustomStringConvertible {
    /// The parameter's name, dashes turned into underscores as the kernel does.
    public let name: String
    /// Its value, without quotes.
    public let value: String

    /// Reads `name=value`.
    ///
    /// - Throws: ``ModuleError`` (EINVAL) if the name is empty or has characters other than ASCII letters, digits,
    ///   `_`, `-` and `.`, if there is no `=`, or if the value has quotes or control characters, which the kernel's
    ///   own parser could not take apart again.
    public init(parsing text: String) throws(ModuleError) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else {
            throw Self.refusal(text, "there is no '='", "write it as name=value, such as queue_depth=64")
        }
        let (name, value) = (parts[0], parts[1])
        guard !name.isEmpty, name.utf8.allSatisfy(Self.isNameByte) else {
            throw Self.refusal(
                text, "'\(name)' is no parameter name", "names are made of letters, digits, '_', '-' and '.'")
        }
        guard value.utf8.allSatisfy({ $0 >= UInt8(ascii: " ") && $0 != 0x7f && $0 != UInt8(ascii: "\"") }) else {
            throw Self.refusal(text, "the value has quotes or control characters", "leave them out")
        }
        self.name = Self.canonical(name)
        self.value = String(value)
    }

    /// The parameter as the kernel's parser reads it, in quotes if the value has spaces.
    public var description: String {
        value.utf8.contains(UInt8(ascii: " ")) ? "\(name)=\"\(value)\"" : "\(name)=\(value)"
    }

    static func canonical(_ name: some StringProtocol) -> String {
        String(name.map { $0 == "-" ? "_" : $0 })
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."):
            true
        default: false
        }
    }

    private static func refusal(_ text: String, _ cause: String, _ remedy: String) -> ModuleError {
        ModuleError(action: "use the parameter '\(text)'", errno: .invalidArgument, cause: cause, remedy: remedy)
    }
}

/// A parameter that a module file says it takes (`modinfo -p`).
public struct DeclaredParameter: Sendable, Hashable {
    /// Its name.
    public let name: String
    /// Its type as `module_param` was given it: `uint`, `bool`, `charp`, `array of int`; nil if the file says none.
    public let type: String?

    /// Whether the kernel would take `value` for this type. Types not known here take anything: the kernel decides.
    public func accepts(_ value: String) -> Bool {
        switch type {
        case "byte", "hexbyte": Self.isInteger(value, in: 0...UInt64(UInt8.max))
        case "ushort": Self.isInteger(value, in: 0...UInt64(UInt16.max))
        case "uint", "hexint": Self.isInteger(value, in: 0...UInt64(UInt32.max))
        case "ulong", "ullong": Self.isInteger(value, in: 0...UInt64.max)
        case "short": Self.isInteger(value, in: 0...UInt64(Int16.max), negative: 0...UInt64(Int16.max) + 1)
        case "int": Self.isInteger(value, in: 0...UInt64(Int32.max), negative: 0...UInt64(Int32.max) + 1)
        case "long": Self.isInteger(value, in: 0...UInt64(Int64.max), negative: 0...UInt64(Int64.max) + 1)
        case "bool", "invbool": ["y", "n", "Y", "N", "0", "1", "on", "off", "On", "Off", "ON", "OFF"].contains(value)
        default: true
        }
    }

    /// Base 16 after `0x`, 8 after `0`, else 10, as the kernel's kstrto… functions read numbers.
    private static func isInteger(
        _ text: String, in range: ClosedRange<UInt64>, negative: ClosedRange<UInt64>? = nil
    ) -> Bool {
        var digits = text[...]
        var allowed: ClosedRange<UInt64>? = range
        if digits.hasPrefix("-") {
            digits.removeFirst()
            allowed = negative
        } else if digits.hasPrefix("+") {
            digits.removeFirst()
        }
        // The sign is taken: what is left must be digits alone, while UInt64(_:radix:) would take a second sign.
        guard let first = digits.utf8.first, first != UInt8(ascii: "+"), first != UInt8(ascii: "-") else {
            return false
        }
        let magnitude: UInt64?
        if digits.hasPrefix("0x") || digits.hasPrefix("0X") {
            let rest = digits.dropFirst(2)
            magnitude = rest.hasPrefix("+") || rest.hasPrefix("-") ? nil : UInt64(rest, radix: 16)
        } else {
            magnitude = UInt64(digits, radix: digits.hasPrefix("0") ? 8 : 10)
        }
        guard let magnitude, let allowed else { return false }
        return allowed.contains(magnitude)
    }
}
