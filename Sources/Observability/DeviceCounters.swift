// SPDX-License-Identifier: Apache-2.0
//
// The counters of one device, as kvm_user shows them in debugfs.

/// A device as kvm_user names it in debugfs: `812-3`.
public struct DeviceIdentity: Sendable, Hashable, Comparable, CustomStringConvertible {
    /// The process that made it, the VMM, as the initial PID namespace numbers it.
    public let process: Int32
    /// The device's own number, unique as long as the module is loaded; tracepoints call it `dev`.
    public let number: UInt32

    /// Puts a name together.
    public init(process: Int32, number: UInt32) {
        self.process = process
        self.number = number
    }

    /// Reads `PROCESS-NUMBER`.
    ///
    /// - Returns: nil for anything else, other ways to write the same numbers included.
    public init?(parsing text: String) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let process = Int32(parts[0]), let number = UInt32(parts[1]) else { return nil }
        self.init(process: process, number: number)
        if description != text { return nil }
    }

    /// `812-3`.
    public var description: String { "\(process)-\(number)" }

    /// By process, then by number.
    public static func < (one: DeviceIdentity, other: DeviceIdentity) -> Bool {
        (one.process, one.number) < (other.process, other.number)
    }
}

/// What a device has counted.
public struct DeviceCounters: Sendable, Hashable {
    /// One counter.
    public struct Counter: Sendable, Hashable {
        /// Its name, as the kernel has it.
        public let name: String
        /// Its value: a total since the device was made, or where the name ends with `_ns` a time in nanoseconds.
        public let value: UInt64

        /// Makes one.
        public init(_ name: String, _ value: UInt64) {
            self.name = name
            self.value = value
        }

        /// Whether it only grows, so that its growth in a second means something; a longest time does not.
        public var isTotal: Bool { !name.hasSuffix("_ns") }
    }

    /// The device.
    public let device: DeviceIdentity
    /// The name of the process that made it, fit for a terminal; nil if it is no more.
    public let command: String?
    /// The counters in the kernel's order, each name once.
    public let counters: [Counter]

    /// Puts counters together.
    public init(_ device: DeviceIdentity, command: String?, counters: [Counter]) {
        self.device = device
        self.command = command
        self.counters = counters
    }

    /// The value of a counter; nil if this kernel has none of that name.
    public subscript(name: String) -> UInt64? {
        counters.first { $0.name == name }?.value
    }

    /// Reads a file of lines `NAME VALUE`.
    ///
    /// - Parameter bytes: anything at all. A line of another form is left out, and so is a name that was there before.
    static func parse(_ bytes: [UInt8]) -> [Counter] {
        var counters: [Counter] = []
        var names: Set<String> = []
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            guard words.count == 2, !words[0].isEmpty, words[0].allSatisfy({ (0x21...0x7e).contains($0) }),
                words[1].allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
                let value = UInt64(String(decoding: words[1], as: UTF8.self))
            else { continue }
            let name = String(decoding: words[0], as: UTF8.self)
            if names.insert(name).inserted { counters.append(Counter(name, value)) }
        }
        return counters
    }
}
