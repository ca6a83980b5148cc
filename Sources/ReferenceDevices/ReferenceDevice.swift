// SPDX-License-Identifier: Apache-2.0
//
// The devices of this module by name.

public import DeviceEmulation

/// A device that can be had by name: what `mmiofd emulate` offers.
public struct ReferenceDevice: Sendable {
    /// The bus that a device sits on.
    public enum Bus: Sendable, Hashable {
        /// Guest physical memory.
        case memory
        /// x86 I/O ports.
        case ports
    }

    /// What a device is connected to on the host's side.
    public struct Connections: Sendable {
        /// Its interrupt.
        public var interrupt: (any InterruptLine)?
        /// Where the bytes go that a serial port sends.
        public var transmit: @Sendable (UInt8) -> Void

        /// Connects a device.
        public init(
            interrupt: (any InterruptLine)? = nil, transmit: @escaping @Sendable (UInt8) -> Void = { _ in }
        ) {
            self.interrupt = interrupt
            self.transmit = transmit
        }
    }

    /// What to ask for.
    public let name: String
    /// What it is, in one line.
    public let summary: String
    /// Which bus it sits on.
    public let bus: Bus
    /// How many bytes or ports it takes.
    public let windowSize: UInt64
    /// Makes one. Give it to a function that is generic over the device's type to serve it.
    public let make: @Sendable (Connections) -> any MMIODevice & Sendable

    /// All of them.
    public static let all: [ReferenceDevice] = [
        ReferenceDevice(
            name: "scratch", summary: "registers of every width, memory, a doorbell and a checksum of all stores",
            bus: .memory, windowSize: Scratch.windowSize
        ) { Scratch(interrupt: $0.interrupt) },
        ReferenceDevice(
            name: "uart16550a", summary: "the PC's serial port with FIFOs, as Linux's 8250 driver expects it",
            bus: .ports, windowSize: UART16550A.windowSize
        ) { UART16550A(interrupt: $0.interrupt, transmit: $0.transmit) },
    ]

    /// The device of that name, or nil.
    public static func named(_ name: String) -> ReferenceDevice? {
        all.first { $0.name == name }
    }
}
