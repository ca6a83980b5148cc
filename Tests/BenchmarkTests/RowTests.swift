// SPDX-License-Identifier: Apache-2.0
//
// A row's arithmetic, and its JSON.

import GuestPrograms
import Histogram
import JSONText
import Testing

@testable import Benchmark

@Suite("Rows")
struct RowTests {
    @Test(
        "The value is the median of the rounds",
        arguments: [([7], 7), ([3, 1, 2], 2), ([4, 1, 3, 2], 2.5), ([9, 9, 1], 9)] as [([Double], Double)])
    func median(_ rounds: [Double], _ value: Double) {
        #expect(Row(Scenario(.exit, .load), wakeupPreemption: true, rounds: rounds).value == value)
    }

    @Test("What was not measured is not in the JSON")
    func least() {
        let row = Row(Scenario(.exit, .store), wakeupPreemption: false, rounds: [5271.4381, 5270, 5272])
        #expect(
            row.json(.instructions).description
                == #"{"path":"exit","operation":"store","unit":"instructions","value":5271.438,"width":4,"bus":"memory","#
                + #""vcpus":1,"devices":1,"ranges":1,"wakeup_preemption":false,"rounds":[5271.438,5270,5272]}"#)
    }

    @Test("What was measured is, under the names that the reports know")
    func most() {
        var scenario = Scenario(.descriptorReadWrite, .burst(64))
        (scenario.width, scenario.bus) = (.two, .port)
        var row = Row(scenario, wakeupPreemption: true, rounds: [1])
        row.counts = Row.Counts(contextSwitches: 2, systemCalls: 1.5, wakeups: 0.25)
        row.requestsPerRead = 12.3456
        row.cpuTime = Row.CPUTime(vmm: 1, emulation: 2, kernel: 3)
        row.stages = [Row.Stage(name: "exit", value: 2763.04), Row.Stage(name: "rest", value: -1)]
        var histogram = Histogram<UInt32>(highestTrackableValue: 1 << 40, numberOfSignificantValueDigits: .five)
        for value in 1...100_000 as ClosedRange<UInt64> { histogram.record(value) }
        row.latency = Row.Latency(histogram, unitsPerTick: 0.5)
        let json = row.json(.time).description
        for part in [
            #""unit":"ns""#, #""width":2,"bus":"port""#, #""context_switches":2,"system_calls":1.5,"wakeups":0.25"#,
            #""requests_per_read":12.346"#, #""cpu_ns":{"vmm":1,"emulation":2,"kernel":3}"#,
            #""latency":{"p50":25000,"p90":45000,"p99":49500,"p99.9":49950,"max":50000}"#,
            #""stages":[{"stage":"exit","value":2763.04},{"stage":"rest","value":-1}]"#,
        ] {
            #expect(json.contains(part), "\(json)")
        }
    }

    @Test("A file has a head and a row on each line")
    func file() throws {
        var plan = Plan()
        (plan.mode, plan.seed, plan.command) = (.instructions, 7, ["mmiofd-bench", "--path", "a \"b\""])
        let rows = [Row(Scenario(.exit, .store), wakeupPreemption: true, rounds: [1])]
        let lines = Outcome(plan: plan, machine: MachineDescription(), rows: rows).json.split(separator: "\n")
        try #require(lines.count == 2)
        #expect(lines[0].hasPrefix(#"{"format":1,"mode":"instructions","machine":{"kernel":""#))
        #expect(lines[0].contains(#""seed":7"#) && lines[0].contains(#"["mmiofd-bench","--path","a \"b\""]"#))
        #expect(lines[0].hasSuffix(#""rows":["#))
        #expect(lines[1].hasSuffix("]}"))
    }
}
