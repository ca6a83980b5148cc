// SPDX-License-Identifier: Apache-2.0
//
// Counters as a table: a column for each device, a row for each counter.

import TextTable

/// A sample as lines of text.
public struct CounterTable: Sendable {
    private let sample: CounterSample
    private let earlier: CounterSample?

    /// Lays a sample out.
    ///
    /// - Parameters:
    ///   - sample: what is shown.
    ///   - earlier: what the rates are since; nil for none.
    public init(_ sample: CounterSample, since earlier: CounterSample? = nil) {
        self.sample = sample
        self.earlier = earlier
    }

    /// The lines. As many devices as fit are side by side, the others below.
    ///
    /// - Parameter width: columns of the terminal; nil for no limit.
    public func lines(width: Int? = nil) -> [String] {
        guard !sample.devices.isEmpty else { return ["no device: no VMM has made one"] }
        var blocks: [[String]] = []
        var rest = sample.devices[...]
        while !rest.isEmpty {
            var (block, count) = (Self.block(rest.prefix(1), self), 1)
            while count < rest.count {
                let wider = Self.block(rest.prefix(count + 1), self)
                guard let width, wider.contains(where: { $0.count > width }) else {
                    (block, count) = (wider, count + 1)
                    continue
                }
                break
            }
            blocks.append(block)
            rest = rest.dropFirst(count)
        }
        let lines = Array(blocks.joined(separator: [""]))
        guard let width else { return lines }
        return lines.map { String($0.prefix(width)) }
    }

    private static func block(_ devices: ArraySlice<DeviceCounters>, _ table: CounterTable) -> [String] {
        var names: [String] = []
        for name in devices.flatMap({ $0.counters.map(\.name) }) where !names.contains(name) { names.append(name) }
        var columns = [["", ""] + names.map { $0.replacing("_", with: " ") }]
        for device in devices {
            let counters = names.map { name in device.counters.first { $0.name == name } }
            let heading = "\(device.command ?? "?") \(device.device)"
            if table.earlier != nil {
                columns.append(["", "per second"] + counters.map { table.rate($0, of: device.device) })
            }
            columns.append([heading, "total"] + counters.map { $0.map { "\($0.value)" } ?? "" })
        }
        var text = TextTable()
        for row in 0..<(names.count + 2) { text.append(columns.map { $0[row] }) }
        return text.lines
    }

    private func rate(_ counter: DeviceCounters.Counter?, of device: DeviceIdentity) -> String {
        guard let counter, let earlier, let rate = sample.perSecond(counter, of: device, since: earlier) else {
            return "-"
        }
        return "\(rate)"
    }
}
