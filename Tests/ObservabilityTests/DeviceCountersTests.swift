// SPDX-License-Identifier: Apache-2.0
//
// Counters of devices: files as they are and as they should not be, rates, the table, and what is said when there are
// none.

import KernelModule
import Testing

@testable import Observability

@Suite("Device counters")
struct DeviceCountersTests {
    private func parse(_ text: String) -> [DeviceCounters.Counter] {
        DeviceCounters.parse(Array(text.utf8))
    }

    @Test("Each line is a name and a value, in the kernel's order, known or not")
    func lines() {
        #expect(
            parse("requests 12\nposted 0\nsomething_new 18446744073709551615\n") == [
                .init("requests", 12), .init("posted", 0), .init("something_new", .max),
            ])
    }

    @Test("A last line without its end counts")
    func unfinished() {
        #expect(parse("requests 12\nposted 3") == [.init("requests", 12), .init("posted", 3)])
    }

    @Test(
        "A line of another form is left out",
        arguments: [
            "", "\n", " ", "requests", "requests ", " 12", "requests  12", "requests 12 ", "requests 1 2",
            "requests -1", "requests +1", "requests 0x1", "requests 1.5", "requests 18446744073709551616",
            "requests 1\t", "req\u{1b}[2J 1", "r\u{e9}quests 1", "requests ١", "\0 1",
        ])
    func malformed(line: String) {
        #expect(parse("\(line)\n").isEmpty)
        #expect(parse("posted 1\n\(line)\ndropped 2\n") == [.init("posted", 1), .init("dropped", 2)])
    }

    @Test("Of a name that comes twice the first counts")
    func twice() {
        #expect(parse("a 1\na 2\n") == [.init("a", 1)])
    }

    @Test("A device is PROCESS-NUMBER, written in one way", arguments: ["1-1", "812-3", "2147483647-4294967295"])
    func device(text: String) {
        #expect(DeviceIdentity(parsing: text)?.description == text)
    }

    @Test(
        "What is no device is nil",
        arguments: [
            "", "-", "1", "1-", "-1", "1-2-3", "a-1", "1-a", "01-1", "1-01", "+1-1", "1-+1", " 1-1", "2147483648-1",
            "1-4294967296", "1--1", "-1-1",
        ])
    func noDevice(text: String) {
        #expect(DeviceIdentity(parsing: text) == nil)
    }

    @Test("Devices are in order of numbers, not of digits")
    func order() throws {
        let devices = ["100-2", "99-1", "100-10"].compactMap { DeviceIdentity(parsing: $0) }
        #expect(devices.sorted().map(\.description) == ["99-1", "100-2", "100-10"])
    }
}

@Suite("Counter samples")
struct CounterSampleTests {
    private let device = DeviceIdentity(process: 812, number: 3)

    private func sample(_ nanoseconds: UInt64, _ counters: DeviceCounters.Counter...) -> CounterSample {
        CounterSample(
            nanoseconds: nanoseconds, devices: [DeviceCounters(device, command: "vmm", counters: counters)])
    }

    private func rate(_ later: CounterSample, since earlier: CounterSample) -> UInt64? {
        later.perSecond(later.devices[0].counters[0], of: device, since: earlier)
    }

    @Test("A rate is the growth by the time, rounded")
    func rates() {
        #expect(rate(sample(3_000_000_000, .init("a", 30)), since: sample(1_000_000_000, .init("a", 10))) == 10)
        #expect(rate(sample(2_000_000_000, .init("a", 3)), since: sample(0, .init("a", 0))) == 2)
        #expect(rate(sample(2_000_000_000, .init("a", 2)), since: sample(0, .init("a", 2))) == 0)
    }

    @Test("No numbers make a rate trap")
    func edges() {
        #expect(rate(sample(1, .init("a", .max)), since: sample(0, .init("a", 0))) == .max)
        #expect(rate(sample(.max, .init("a", .max)), since: sample(0, .init("a", 0))) == 1_000_000_000)
    }

    @Test("There is no rate without a counter before, without time, backwards, and of what is no total")
    func none() {
        #expect(rate(sample(2, .init("a", 3)), since: sample(1, .init("b", 0))) == nil)
        #expect(rate(sample(2, .init("a", 3)), since: CounterSample(nanoseconds: 1, devices: [])) == nil)
        #expect(rate(sample(1, .init("a", 3)), since: sample(1, .init("a", 0))) == nil)
        #expect(rate(sample(1, .init("a", 3)), since: sample(2, .init("a", 0))) == nil)
        #expect(rate(sample(2, .init("a", 3)), since: sample(1, .init("a", 4))) == nil)
        #expect(rate(sample(2, .init("longest_wait_ns", 3)), since: sample(1, .init("longest_wait_ns", 2))) == nil)
    }
}

@Suite("Counter table")
struct CounterTableTests {
    private func device(_ number: UInt32, _ counters: DeviceCounters.Counter...) -> DeviceCounters {
        DeviceCounters(
            DeviceIdentity(process: 7, number: number), command: number == 1 ? "vmm" : nil, counters: counters)
    }

    @Test("Without devices it says so")
    func empty() {
        #expect(
            CounterTable(CounterSample(nanoseconds: 0, devices: [])).lines() == ["no device: no VMM has made one"])
    }

    @Test("A column for each device, rates beside totals, an unknown counter as it is")
    func columns() {
        let earlier = CounterSample(
            nanoseconds: 0, devices: [device(1, .init("requests", 10), .init("longest_wait_ns", 5))])
        let later = CounterSample(
            nanoseconds: 1_000_000_000,
            devices: [
                device(1, .init("requests", 15), .init("longest_wait_ns", 5)),
                device(2, .init("requests", 1), .init("new_one", 2)),
            ])
        #expect(
            CounterTable(later, since: earlier).lines() == [
                "                             vmm 7-1              ? 7-2",
                "                 per second    total  per second  total",
                "requests                  5       15           -      1",
                "longest wait ns           -        5           -",
                "new one                   -                    -      2",
            ])
    }

    @Test("Without an earlier sample there are no rates")
    func totals() {
        #expect(
            CounterTable(CounterSample(nanoseconds: 0, devices: [device(1, .init("requests", 10))])).lines() == [
                "          vmm 7-1", "            total", "requests       10",
            ])
    }

    @Test("No line is wider than the terminal, however narrow that is", arguments: [0, 1, 10, 20, 40])
    func narrow(width: Int) {
        let devices = (1...5).map { device($0, .init("requests", 10), .init("posted", 1)) }
        let table = CounterTable(CounterSample(nanoseconds: 0, devices: devices))
        let lines = table.lines(width: width)
        #expect(lines.allSatisfy { $0.count <= width })
        #expect(table.lines().count == 4)
        if width == 40 { #expect(lines.filter { $0.hasPrefix("requests") }.count == 2) }
    }
}
