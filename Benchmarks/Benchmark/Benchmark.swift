// SPDX-License-Identifier: Apache-2.0
//
// A plan carried out.

import JSONText
import SystemPackage

/// What came of a plan.
public struct Outcome: Sendable {
    /// What was planned.
    public let plan: Plan
    /// Where it was carried out.
    public let machine: MachineDescription
    /// What was measured, in the plan's order.
    public let rows: [Row]

    /// As docs/benchmark-format.md has it, a row on each line.
    public var json: String {
        let head = JSONValue.fields([
            ("format", .integer(1)), ("mode", .string(plan.mode.rawValue)), ("machine", machine.json),
            ("plan", plan.json),
        ]).description.dropLast()
        let rows = rows.map { "\n    \($0.json(plan.mode))" }.joined(separator: ",")
        return "\(head),\"rows\":[\(rows)]}\n"
    }
}

extension Plan {
    /// Measures everything.
    ///
    /// - Parameter progress: told each row's place, how many there will be, and the row, as soon as it is there.
    /// - Throws: ``MeasuringFailure``, and the errors of `KVM`, `MMIOForwarding` and `LinuxSystem`.
    public func carryOut(_ progress: (Int, Int, Row, Mode) -> Void) throws -> Outcome {
        for scenario in scenarios {
            if let objection = scenario.objection { throw MeasuringFailure(objection) }
        }
        let preemption = WakeupPreemption()
        let settings = asksKernel && preemption.isKnown ? wakeupPreemption : [true]
        var rows: [Row] = []
        for on in settings {
            if asksKernel { try preemption.set(on) }
            var rounds = try alternatingRounds()
            for scenario in scenarios {
                let measurement = try Measurement(scenario, self)
                let row = try measurement.row(wakeupPreemption: on, after: rounds.isEmpty ? [] : rounds.removeFirst())
                rows.append(row)
                progress(rows.count, settings.count * scenarios.count, row, mode)
            }
        }
        return Outcome(plan: self, machine: MachineDescription(), rows: rows)
    }

    /// All rounds of each scenario but the last one, where figures drift: by turns, so that they drift for all alike.
    private func alternatingRounds() throws -> [[Double]] {
        guard mode == .time, rounds > 1 else { return [] }
        var results = [[Double]](repeating: [], count: scenarios.count)
        for _ in 1..<rounds {
            for (index, scenario) in scenarios.enumerated() {
                results[index] += try Measurement(scenario, self).rounds(1).values
            }
        }
        return results
    }

    var json: JSONValue {
        var fields: [(String, JSONValue)] = [
            ("seed", .integer(Int(truncatingIfNeeded: seed))), ("count", .integer(count)), ("rounds", .integer(rounds)),
            ("warmup", .integer(warmup)), ("command", .array(command.map { .string($0) })),
        ]
        if let rate { fields.append(("rate", .number(rate))) }
        if let pinning { fields.append(("pin", .array(pinning.map { .integer($0) }))) }
        return .fields(fields)
    }
}
