// SPDX-License-Identifier: Apache-2.0
//
// The serial port of the PC, National Semiconductor's PC16550D, as a device on the port bus.

public import DeviceEmulation

/// A 16550A UART: 8 registers of 1 byte, FIFOs of 16 bytes, as in the PC16550D data sheet.
///
/// | offset | DLAB | load | store |
/// |---|---|---|---|
/// | 0 | 0 | RBR, received byte | THR, byte to send |
/// | 1 | 0 | IER, which interrupts | IER |
/// | 0, 1 | 1 | DLL, DLM, divisor | DLL, DLM |
/// | 2 | | IIR, which interrupt | FCR, FIFO control |
/// | 3 | | LCR, line control; bit 7 is DLAB | LCR |
/// | 4 | | MCR, modem control | MCR |
/// | 5 | | LSR, line status | nothing |
/// | 6 | | MSR, modem status | nothing |
/// | 7 | | SCR, scratch | SCR |
///
/// It sits on an 8-bit bus: wider accesses reach consecutive registers, lowest first, as on an ISA bus.
///
/// Bytes leave at once, so the transmitter is always empty. The host feeds bytes in with ``receive(_:_:)``, from
/// another thread through `SharedDevice.withDevice`. CTS, DSR and DCD are set and RI is not, until
/// ``setModemInputs(_:)`` says otherwise. There is no clock, so the divisor is kept and otherwise ignored, and the
/// character timeout (four characters' time without a byte coming or going) counts as reached whenever fewer bytes
/// than the trigger level wait in the FIFO: no byte is left behind.
///
/// SCR alone is in ``shadow``, loaded without asking the device: loading it does nothing, and nothing depends on it.
/// Of the others,
/// - RBR, IIR, LSR and MSR change when they are loaded: a byte goes, an interrupt is taken back, bits are cleared;
/// - IER, LCR and MCR do not, nor do DLL and DLM, which LCR puts in the place of RBR and IER, but drivers load them to
///   change bits and store them back, on whichever vCPU holds the port's lock. A load from shadow memory does not wait
///   for other vCPUs' stores, and such a driver would now and then restore what another vCPU has just replaced.
///
/// The interrupt output is `INTRPT` gated by OUT2, as on the PC's adapter. A rising edge signals the interrupt line.
public struct UART16550A: MMIODevice, Sendable {
    /// Number of ports.
    public static let windowSize: UInt64 = 8
    /// Bytes that each FIFO holds.
    public static let fifoSize = 16

    private let interrupt: (any InterruptLine)?
    private let transmit: @Sendable (UInt8) -> Void

    private var interruptEnable: InterruptSources = []
    private var areFIFOsEnabled = false
    private var triggerLevel = 1
    private var lineControl: UInt8 = 0
    private var modemControl: ModemControl = []
    private var modemInputs: ModemStatus = [.clearToSend, .dataSetReady, .carrierDetect]
    private var modemChanges: ModemStatus = []
    private let registers = ShadowRegisters([.register(Register.scratch.rawValue, .one)])
    private var divisor: UInt16 = 0x000c
    private var received = ReceiveFIFO()
    private var hasOverrun = false
    /// Whether "the transmitter is empty" is still to be reported.
    private var isTransmitterNews = false
    private var isInterruptRaised = false

    /// Makes the device as it is after a reset.
    ///
    /// - Parameters:
    ///   - interrupt: what the interrupt output drives.
    ///   - transmit: gets each byte that the guest sends. It is called while the access is carried out, and should be
    ///     quick.
    public init(interrupt: (any InterruptLine)? = nil, transmit: @escaping @Sendable (UInt8) -> Void = { _ in }) {
        self.interrupt = interrupt
        self.transmit = transmit
    }

    public var label: String { "uart16550a" }
    public var widestAccess: AccessWidth { .one }
    public var shadow: ShadowRegisters? { registers }

    // MARK: The guest's side

    public mutating func load(_ access: Access) throws(AccessFault) -> UInt64 {
        guard let register = Register(rawValue: access.offset) else { throw .noRegister }
        defer { updateInterrupt() }
        switch register {
        case .data where isDivisorSelected: return UInt64(divisor & 0xff)
        case .data: return UInt64(received.removeFirst())
        case .interruptEnable where isDivisorSelected: return UInt64(divisor >> 8)
        case .interruptEnable: return UInt64(interruptEnable.rawValue)
        case .interruptID: return UInt64(takeInterruptID())
        case .lineControl: return UInt64(lineControl)
        case .modemControl: return UInt64(modemControl.rawValue)
        case .lineStatus: return UInt64(takeLineStatus())
        case .modemStatus: return UInt64(takeModemStatus())
        case .scratch: return registers[access.offset, .one]
        }
    }

    public mutating func store(_ value: UInt64, _ access: Access) throws(AccessFault) {
        guard let register = Register(rawValue: access.offset) else { throw .noRegister }
        let byte = UInt8(truncatingIfNeeded: value)
        defer { updateInterrupt() }
        switch register {
        case .data where isDivisorSelected: divisor = divisor & 0xff00 | UInt16(byte)
        case .data: send(byte)
        case .interruptEnable where isDivisorSelected: divisor = divisor & 0x00ff | UInt16(byte) << 8
        case .interruptEnable: enableInterrupts(InterruptSources(rawValue: byte & 0x0f))
        case .interruptID: controlFIFOs(byte)
        case .lineControl: lineControl = byte
        case .modemControl: controlModem(ModemControl(rawValue: byte & 0x1f))
        case .lineStatus, .modemStatus: throw .readOnly
        case .scratch: registers[access.offset, .one] = value
        }
    }

    // MARK: The host's side

    /// How many bytes can come in without loss. 0 in loopback, where the receiver is not connected to the line.
    public var receiveCapacity: Int {
        isLoopback ? 0 : max(0, depth - received.count)
    }

    /// A byte comes in over the line. If there is no room for it, the guest sees an overrun; in loopback it is lost.
    ///
    /// - Parameters:
    ///   - byte: what was sent.
    ///   - errors: what went wrong on the line.
    public mutating func receive(_ byte: UInt8, _ errors: LineErrors = []) {
        guard !isLoopback else { return }
        take(byte, errors)
        updateInterrupt()
    }

    /// The other end changes its modem lines. In loopback the guest does not see it until that ends.
    public mutating func setModemInputs(_ inputs: ModemStatus) {
        changeModemStatus { $0.modemInputs = inputs }
        updateInterrupt()
    }

    // MARK: Data

    private var isDivisorSelected: Bool { lineControl & 0x80 != 0 }
    private var isLoopback: Bool { modemControl.contains(.loopback) }
    private var depth: Int { areFIFOsEnabled ? Self.fifoSize : 1 }

    private mutating func send(_ byte: UInt8) {
        // The byte leaves at once: the transmitter is full for no time, but a new "empty" is an edge of its own.
        isTransmitterNews = false
        updateInterrupt()
        if isLoopback { take(byte, []) } else { transmit(byte) }
        isTransmitterNews = true
    }

    private mutating func take(_ byte: UInt8, _ errors: LineErrors) {
        if received.count < depth {
            received.append(byte, errors)
        } else {
            hasOverrun = true
            // Without FIFOs the new byte replaces the old one; with them it is lost.
            if !areFIFOsEnabled {
                received = ReceiveFIFO()
                received.append(byte, errors)
            }
        }
    }

    private mutating func controlFIFOs(_ byte: UInt8) {
        let enable = byte & 0x01 != 0
        if enable != areFIFOsEnabled || (enable && byte & 0x02 != 0) { received = ReceiveFIFO() }
        areFIFOsEnabled = enable
        // The other bits count only while bit 0 is set.
        guard enable else { return }
        switch byte >> 6 {
        case 0: triggerLevel = 1
        case 1: triggerLevel = 4
        case 2: triggerLevel = 8
        default: triggerLevel = 14
        }
    }

    private mutating func takeLineStatus() -> UInt8 {
        var status: UInt8 = 0x60  // THRE, TEMT
        if received.count > 0 { status |= 0x01 }
        if hasOverrun { status |= 0x02 }
        status |= received.firstErrors.rawValue
        if areFIFOsEnabled && received.hasErrors { status |= 0x80 }
        hasOverrun = false
        received.clearFirstErrors()
        return status
    }

    // MARK: Modem lines

    private var modemStatus: ModemStatus {
        guard isLoopback else { return modemInputs }
        var status: ModemStatus = []
        if modemControl.contains(.requestToSend) { status.insert(.clearToSend) }
        if modemControl.contains(.dataTerminalReady) { status.insert(.dataSetReady) }
        if modemControl.contains(.out1) { status.insert(.ringIndicator) }
        if modemControl.contains(.out2) { status.insert(.carrierDetect) }
        return status
    }

    private mutating func controlModem(_ control: ModemControl) {
        changeModemStatus { $0.modemControl = control }
    }

    private mutating func changeModemStatus(_ change: (inout Self) -> Void) {
        let before = modemStatus
        change(&self)
        var changes = before.symmetricDifference(modemStatus)
        // Of the ring indicator only the end of ringing counts.
        if modemStatus.contains(.ringIndicator) { changes.remove(.ringIndicator) }
        modemChanges.formUnion(changes)
    }

    private mutating func takeModemStatus() -> UInt8 {
        defer { modemChanges = [] }
        return modemStatus.rawValue | modemChanges.rawValue >> 4
    }

    // MARK: Interrupts

    private mutating func enableInterrupts(_ sources: InterruptSources) {
        if sources.contains(.transmitter), !interruptEnable.contains(.transmitter) { isTransmitterNews = true }
        interruptEnable = sources
    }

    /// What IIR bits 3 to 0 say; the highest priority comes first.
    private var interruptID: UInt8 {
        if interruptEnable.contains(.lineStatus), hasOverrun || received.firstErrors != [] { return 0x06 }
        if interruptEnable.contains(.received), received.count > 0 {
            return !areFIFOsEnabled || received.count >= triggerLevel ? 0x04 : 0x0c
        }
        if interruptEnable.contains(.transmitter), isTransmitterNews { return 0x02 }
        if interruptEnable.contains(.modemStatus), modemChanges != [] { return 0x00 }
        return Self.noInterrupt
    }

    private mutating func takeInterruptID() -> UInt8 {
        let id = interruptID
        if id == 0x02 { isTransmitterNews = false }
        return id | (areFIFOsEnabled ? 0xc0 : 0)
    }

    private mutating func updateInterrupt() {
        // In loopback the OUT2 pin is inactive, and the adapter's gate closed.
        let isRaised = modemControl.contains(.out2) && !isLoopback && interruptID != Self.noInterrupt
        if isRaised, !isInterruptRaised { interrupt?.signal() }
        isInterruptRaised = isRaised
    }

    private static let noInterrupt: UInt8 = 0x01
}

extension UART16550A {
    /// Offsets of the ports.
    private enum Register: UInt64 {
        case data, interruptEnable, interruptID, lineControl, modemControl, lineStatus, modemStatus, scratch
    }

    /// What went wrong with a byte on the line; bits as in LSR.
    public struct LineErrors: OptionSet, Sendable {
        public let rawValue: UInt8

        public init(rawValue: UInt8) { self.rawValue = rawValue & 0x1c }

        /// The parity bit was wrong.
        public static let parity = Self(rawValue: 0x04)
        /// The stop bit was missing.
        public static let framing = Self(rawValue: 0x08)
        /// The line was held in break; the byte is 0.
        public static let lineBreak = Self(rawValue: 0x10)
    }

    /// Lines that come from the other end; bits as in MSR.
    public struct ModemStatus: OptionSet, Sendable {
        public let rawValue: UInt8

        public init(rawValue: UInt8) { self.rawValue = rawValue & 0xf0 }

        /// CTS.
        public static let clearToSend = Self(rawValue: 0x10)
        /// DSR.
        public static let dataSetReady = Self(rawValue: 0x20)
        /// RI.
        public static let ringIndicator = Self(rawValue: 0x40)
        /// DCD.
        public static let carrierDetect = Self(rawValue: 0x80)
    }

    /// Bits of MCR.
    private struct ModemControl: OptionSet {
        let rawValue: UInt8

        static let dataTerminalReady = Self(rawValue: 0x01)
        static let requestToSend = Self(rawValue: 0x02)
        static let out1 = Self(rawValue: 0x04)
        static let out2 = Self(rawValue: 0x08)
        static let loopback = Self(rawValue: 0x10)
    }

    /// Bits of IER.
    private struct InterruptSources: OptionSet {
        let rawValue: UInt8

        static let received = Self(rawValue: 0x01)
        static let transmitter = Self(rawValue: 0x02)
        static let lineStatus = Self(rawValue: 0x04)
        static let modemStatus = Self(rawValue: 0x08)
    }

    /// Bytes that came in, each with what went wrong with it.
    private struct ReceiveFIFO {
        private var bytes = InlineArray<16, UInt8>(repeating: 0)
        private var errors = InlineArray<16, LineErrors>(repeating: [])
        private var first = 0
        private(set) var count = 0

        /// What went wrong with the oldest byte.
        var firstErrors: LineErrors { count > 0 ? errors[first] : [] }

        /// Whether anything went wrong with any byte.
        var hasErrors: Bool { (0..<count).contains { errors[(first + $0) % 16] != [] } }

        /// Forgets what went wrong with the oldest byte: it has been reported.
        mutating func clearFirstErrors() {
            if count > 0 { errors[first] = [] }
        }

        /// Adds a byte; the caller has seen to room.
        mutating func append(_ byte: UInt8, _ error: LineErrors) {
            guard count < 16 else { return }
            bytes[(first + count) % 16] = byte
            errors[(first + count) % 16] = error
            count += 1
        }

        /// Takes the oldest byte, 0 if there is none.
        mutating func removeFirst() -> UInt8 {
            guard count > 0 else { return 0 }
            defer {
                first = (first + 1) % 16
                count -= 1
            }
            return bytes[first]
        }
    }
}
