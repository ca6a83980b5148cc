// SPDX-License-Identifier: Apache-2.0
//
// The UART as a driver sees it, and as the data sheet has it.

import DeviceEmulation
import DeviceEmulationTesting
import MMIOForwarding
import ReferenceDevices
import Synchronization
import Testing

private enum Port {
    static let data: UInt64 = 0
    static let ier: UInt64 = 1
    static let iir: UInt64 = 2
    static let fcr: UInt64 = 2
    static let lcr: UInt64 = 3
    static let mcr: UInt64 = 4
    static let lsr: UInt64 = 5
    static let msr: UInt64 = 6
    static let scr: UInt64 = 7
}

/// A UART, what it sent, and its interrupts.
private struct Bench: Sendable {
    private final class Sent: Sendable {
        let bytes = Mutex<[UInt8]>([])
    }

    private let sink: Sent
    let line: CountingInterruptLine
    let guest: ScriptedGuest<UART16550A>

    init() {
        let sink = Sent()
        let line = CountingInterruptLine()
        self.sink = sink
        self.line = line
        guest = ScriptedGuest(UART16550A(interrupt: line) { byte in sink.bytes.withLock { $0.append(byte) } })
    }

    var sent: [UInt8] { sink.bytes.withLock { $0 } }

    func load(_ port: UInt64) -> UInt64 { guest.load(port, .one) }
    func store(_ port: UInt64, _ value: UInt64) { guest.store(port, .one, value) }

    func receive(_ bytes: [UInt8], _ errors: UART16550A.LineErrors = []) {
        guest.shared.withDevice { uart in
            for byte in bytes { uart.receive(byte, errors) }
        }
    }
}

@Suite("UART 16550A")
struct UART16550ATests {
    private let bench = Bench()

    @Test("Linux's 8250 driver takes it for a PORT_16550A")
    func linuxAutoconfig() {
        let port = bench
        // Is there a UART at all? IER keeps its four bits and no more.
        let ier = port.load(Port.ier)
        port.store(Port.ier, 0)
        #expect(port.load(Port.ier) & 0x0f == 0)
        port.store(Port.ier, 0x0f)
        #expect(port.load(Port.ier) & 0x0f == 0x0f)
        port.store(Port.ier, ier)
        // Loopback: RTS comes back as CTS, OUT2 as DCD.
        let mcr = port.load(Port.mcr)
        let lcr = port.load(Port.lcr)
        port.store(Port.mcr, 0x1a)
        #expect(port.load(Port.msr) & 0xf0 == 0x90)
        port.store(Port.mcr, mcr)
        // An EFR would be at IIR with LCR 0xbf; the store is a store to FCR here.
        port.store(Port.lcr, 0xbf)
        port.store(Port.fcr, 0)
        port.store(Port.lcr, 0)
        // The FIFO bits tell 8250, 16550 and 16550A apart.
        port.store(Port.fcr, 0x01)
        #expect(port.load(Port.iir) >> 6 == 3, "a 16550A")
        // An EFR that reads 0 would make it a 16650 or a 16850.
        port.store(Port.lcr, 0x80)
        #expect(port.load(Port.iir) != 0)
        port.store(Port.lcr, 0xbf)
        #expect(port.load(Port.iir) != 0)
        // National's SuperIO shows MCR's loopback bit at offset 2 with LCR 0xe0.
        port.store(Port.lcr, 0)
        let status = port.load(Port.mcr)
        port.store(Port.mcr, status ^ 0x10)
        port.store(Port.lcr, 0xe0)
        #expect((port.load(Port.iir) ^ status) & 0x10 == 0)
        port.store(Port.lcr, 0)
        port.store(Port.mcr, status)
        // A 16750 shows its 64-byte FIFO in IIR bit 5, with DLAB set alone.
        port.store(Port.fcr, 0x21)
        #expect(port.load(Port.iir) >> 5 == 6)
        port.store(Port.fcr, 0x01)
        port.store(Port.lcr, 0x80)
        port.store(Port.fcr, 0x21)
        #expect(port.load(Port.iir) >> 5 == 6)
        port.store(Port.fcr, 0x01)
        port.store(Port.lcr, 0)
        // XScale's UART keeps a unit enable in IER bit 6.
        port.store(Port.ier, 0x40)
        #expect(port.load(Port.ier) & 0x40 == 0)
        port.store(Port.ier, 0)
        // The FIFO's depth, counted in loopback.
        port.store(Port.fcr, 0x07)
        port.store(Port.mcr, 0x10)
        port.store(Port.lcr, 0x80)
        port.store(Port.data, 1)
        port.store(Port.ier, 0)
        port.store(Port.lcr, 0x03)
        for value in 0..<256 { port.store(Port.data, UInt64(value)) }
        var depth = 0
        while port.load(Port.lsr) & 0x01 != 0, depth < 256 {
            #expect(port.load(Port.data) == UInt64(depth))
            depth += 1
        }
        #expect(depth == 16)
        #expect(port.sent.isEmpty)
        port.store(Port.mcr, mcr)
        port.store(Port.lcr, lcr)
    }

    @Test("Linux's startup finds a transmitter interrupt that is raised anew when it is enabled")
    func linuxTransmitterProbe() {
        for _ in 0..<2 {
            bench.store(Port.ier, 0x02)
            #expect(bench.load(Port.lsr) & 0x60 == 0x60)
            #expect(bench.load(Port.iir) == 0x02)
            #expect(bench.load(Port.iir) == 0x01, "reading IIR clears it")
            bench.store(Port.ier, 0)
        }
    }

    @Test("After a reset nothing is pending, and the line is up")
    func reset() {
        #expect((0...7).map { bench.load($0) } == [0, 0, 0x01, 0, 0, 0x60, 0xb0, 0])
    }

    @Test("Bytes go out in order")
    func transmit() {
        for byte in [0x48, 0x69, 0x00, 0xff] as [UInt64] { bench.store(Port.data, byte) }
        #expect(bench.sent == [0x48, 0x69, 0x00, 0xff])
    }

    @Test("Scratch, line control and modem control keep what they are given, modem control 5 bits")
    func keeps() {
        for port in [Port.scr, Port.lcr, Port.mcr] { bench.store(port, 0xff) }
        #expect(bench.load(Port.scr) == 0xff)
        #expect(bench.load(Port.lcr) == 0xff)
        #expect(bench.load(Port.mcr) == 0x1f)
    }

    @Test("DLAB puts the divisor where data and IER are, and hides neither for good")
    func divisor() {
        bench.store(Port.ier, 0x05)
        bench.store(Port.lcr, 0x83)
        bench.store(Port.data, 0x34)
        bench.store(Port.ier, 0x12)
        #expect(bench.load(Port.data) == 0x34)
        #expect(bench.load(Port.ier) == 0x12)
        bench.store(Port.lcr, 0x03)
        #expect(bench.load(Port.ier) == 0x05)
        #expect(bench.sent.isEmpty)
    }

    @Test("A wide access reaches consecutive ports, as on an 8-bit bus")
    func wide() {
        bench.store(Port.lcr, 0x80)
        bench.guest.store(0, .two, 0x1234)
        #expect(bench.load(0) == 0x34)
        #expect(bench.load(1) == 0x12)
        #expect(bench.guest.load(0, .two) == 0x1234)
        #expect(bench.guest.load(6, .four) & 0xffff_0000 == 0xffff_0000, "beyond the last port is nothing")
    }

    @Test("Stores to the status registers are dropped", arguments: [Port.lsr, Port.msr])
    func readOnly(port: UInt64) {
        let before = bench.load(port)
        bench.store(port, 0)
        #expect(bench.load(port) == before)
        #expect(bench.guest.counters.readOnly == 1)
    }

    @Test("Without FIFOs a second byte replaces the first, and the overrun is told once")
    func overrunWithoutFIFO() {
        bench.receive([1, 2])
        #expect(bench.load(Port.lsr) == 0x63)
        #expect(bench.load(Port.lsr) == 0x61)
        #expect(bench.load(Port.data) == 2)
        #expect(bench.load(Port.lsr) == 0x60)
    }

    @Test("With FIFOs 16 bytes are kept, the seventeenth is lost, and the overrun is told")
    func overrunWithFIFO() {
        bench.store(Port.fcr, 0x01)
        #expect(bench.guest.shared.withDevice { $0.receiveCapacity } == 16)
        bench.receive(Array(0...16))
        #expect(bench.guest.shared.withDevice { $0.receiveCapacity } == 0)
        #expect(bench.load(Port.lsr) == 0x63)
        #expect((0..<16).map { _ in bench.load(Port.data) } == Array(0..<16))
        #expect(bench.load(Port.lsr) == 0x60)
    }

    @Test("Switching FIFOs on or off, and the reset bit, empty the receiver", arguments: [0x00, 0x03] as [UInt64])
    func emptied(control: UInt64) {
        bench.store(Port.fcr, 0x01)
        bench.receive([1, 2, 3])
        bench.store(Port.fcr, control)
        #expect(bench.load(Port.lsr) & 0x01 == 0)
    }

    @Test("FCR's other bits count only together with its enable bit")
    func ignoredWithoutEnable() {
        bench.receive([1])
        bench.store(Port.fcr, 0xc2)
        #expect(bench.load(Port.lsr) & 0x01 == 1)
        bench.store(Port.fcr, 0x01)
        bench.store(Port.ier, 0x01)
        bench.receive([1])
        #expect(bench.load(Port.iir) == 0xc4, "the trigger level is still 1")
    }

    @Test(
        "At the trigger level IIR says data, below it timeout",
        arguments: zip([0x01, 0x41, 0x81, 0xc1] as [UInt64], [1, 4, 8, 14]))
    func triggerLevel(control: UInt64, level: Int) {
        bench.store(Port.fcr, control)
        bench.store(Port.ier, 0x01)
        for count in 1...16 {
            bench.receive([0])
            #expect(bench.load(Port.iir) == (count >= level ? 0xc4 : 0xcc))
        }
    }

    @Test("An error shows when its byte is the oldest; bit 7 tells of it before that")
    func lineErrors() {
        bench.store(Port.fcr, 0x01)
        bench.receive([1])
        bench.receive([0], .lineBreak)
        bench.receive([3], [.parity, .framing])
        #expect(bench.load(Port.lsr) == 0xe1)
        _ = bench.load(Port.data)
        #expect(bench.load(Port.lsr) == 0xf1)
        #expect(bench.load(Port.lsr) == 0xe1, "told once")
        _ = bench.load(Port.data)
        #expect(bench.load(Port.lsr) == 0xed)
        #expect(bench.load(Port.lsr) == 0x61)
    }

    @Test("IIR names the sources in the order of their priority")
    func priorities() {
        bench.store(Port.fcr, 0x01)
        bench.store(Port.ier, 0x0f)
        bench.receive([1], .parity)
        bench.guest.shared.withDevice { $0.setModemInputs([]) }
        #expect(bench.load(Port.iir) == 0xc6)
        _ = bench.load(Port.lsr)
        #expect(bench.load(Port.iir) == 0xc4)
        _ = bench.load(Port.data)
        #expect(bench.load(Port.iir) == 0xc2)
        #expect(bench.load(Port.iir) == 0xc0)
        #expect(bench.load(Port.msr) == 0x0b)
        #expect(bench.load(Port.iir) == 0xc1)
    }

    @Test("A modem line's change is told once; of the ring indicator only the end")
    func modemChanges() {
        let uart = bench.guest.shared
        uart.withDevice { $0.setModemInputs([.clearToSend, .dataSetReady, .carrierDetect, .ringIndicator]) }
        #expect(bench.load(Port.msr) == 0xf0)
        uart.withDevice { $0.setModemInputs([.clearToSend, .dataSetReady, .carrierDetect]) }
        #expect(bench.load(Port.msr) == 0xb4)
        uart.withDevice { $0.setModemInputs([.dataSetReady]) }
        #expect(bench.load(Port.msr) == 0x29)
        #expect(bench.load(Port.msr) == 0x20)
    }

    @Test("In loopback each modem output comes back as its input", arguments: 0..<16 as Range<UInt64>)
    func loopbackLines(outputs: UInt64) {
        bench.store(Port.mcr, 0x10 | outputs)
        let expected = (outputs & 2) << 3 | (outputs & 1) << 5 | (outputs & 4) << 4 | (outputs & 8) << 4
        #expect(bench.load(Port.msr) & 0xf0 == expected)
    }

    @Test("In loopback bytes come back and nothing reaches the line, nor comes from it")
    func loopbackData() {
        bench.store(Port.mcr, 0x10)
        bench.receive([9])
        #expect(bench.guest.shared.withDevice { $0.receiveCapacity } == 0)
        #expect(bench.load(Port.lsr) & 1 == 0)
        bench.store(Port.data, 0x5a)
        #expect(bench.load(Port.data) == 0x5a)
        #expect(bench.sent.isEmpty)
    }

    @Test("OUT2 gates the interrupt; opening the gate over a pending one interrupts")
    func gate() {
        bench.store(Port.ier, 0x01)
        bench.receive([1])
        #expect(bench.line.count == 0)
        bench.store(Port.mcr, 0x08)
        #expect(bench.line.count == 1)
        bench.store(Port.mcr, 0x18)
        bench.store(Port.mcr, 0x08)
        #expect(bench.line.count == 2, "loopback closes the gate")
    }

    @Test("The interrupt line is signalled when the output rises, not while it stays up")
    func edges() {
        bench.store(Port.fcr, 0x01)
        bench.store(Port.mcr, 0x08)
        bench.store(Port.ier, 0x01)
        bench.receive([1, 2, 3])
        #expect(bench.line.count == 1)
        for _ in 0..<3 { _ = bench.load(Port.data) }
        bench.receive([4])
        #expect(bench.line.count == 2)
    }

    @Test("Each byte sent raises the transmitter interrupt anew")
    func transmitterInterrupt() {
        bench.store(Port.mcr, 0x08)
        bench.store(Port.ier, 0x02)
        #expect(bench.line.count == 1)
        #expect(bench.load(Port.iir) == 0x02)
        bench.store(Port.data, 1)
        #expect(bench.line.count == 2)
        bench.store(Port.data, 2)
        #expect(bench.line.count == 3)
    }

    @Test("In shadow memory is SCR alone, and it keeps its byte there")
    func shadow() throws {
        let shadow = try #require(bench.guest.shared.withDevice { $0.shadow })
        bench.store(Port.scr, 0x5a)
        for port in 0..<UART16550A.windowSize {
            #expect(shadow.value(of: Access(port, .one)) == (port == Port.scr ? 0x5a : nil))
        }
        #expect(bench.load(Port.scr) == 0x5a)
    }
}
