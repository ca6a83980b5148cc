// SPDX-License-Identifier: Apache-2.0
//
// Which rows there are, and which cannot be.

import GuestPrograms
import Testing

@testable import Benchmark

@Suite("Plans")
struct PlanTests {
    @Test("The usual plan has each path with the operations that it allows, once")
    func usual() {
        let scenarios = Plan.scenarios()
        #expect(Set(scenarios).count == scenarios.count)
        #expect(Set(scenarios.map(\.path)) == Set(Path.allCases))
        #expect(scenarios.allSatisfy { $0.objection == nil })
        #expect(scenarios.filter { $0.path == .descriptorShadow }.map(\.operation) == [.load])
        #expect(scenarios.filter { $0.path == .ioeventfd }.map(\.operation) == [.store, .burst(64)])
    }

    @Test("Paths are named as the reports know them")
    func names() {
        let names = [
            "exit", "socket-posted", "socket", "socket-stream", "pipes", "shm-futex", "shm-spin", "ioeventfd",
            "ioeventfd-waiter", "coalesced", "fd-readwrite", "fd-exchange", "fd-shadow",
        ]
        #expect(Set(names).isSubset(of: Path.allCases.map(\.rawValue)))
    }

    @Test("What cannot be is refused, and says why")
    func objections() {
        func objection(_ path: Path, _ operation: Operation, _ change: (inout Scenario) -> Void = { _ in })
            -> String?
        {
            var scenario = Scenario(path, operation)
            change(&scenario)
            return scenario.objection
        }
        #expect(objection(.coalesced, .load) == "coalesced has no load")
        #expect(objection(.descriptorShadow, .store) == "fd-shadow has no store")
        #expect(objection(.exit, .load) { $0.width = .eight } == nil)
        #expect(objection(.exit, .load) { ($0.width, $0.bus) = (.eight, .port) } != nil)
        #expect(objection(.exit, .mixed) { $0.bus = .port } != nil)
        #expect(objection(.coalesced, .store) { $0.bus = .port } != nil)
        #expect(objection(.socket, .load) { $0.vcpus = 2 } != nil)
        #expect(objection(.exit, .load) { $0.vcpus = 2 } == nil)
        #expect(objection(.socket, .load) { $0.devices = 2 } != nil)
        #expect(objection(.descriptorExchange, .load) { $0.devices = 32 } == nil)
        #expect(objection(.descriptorExchange, .load) { ($0.devices, $0.ranges) = (32, 64) } != nil)
    }

    @Test("A scenario's text says what is unusual, and nothing else")
    func text() {
        var scenario = Scenario(.descriptorExchange, .burst(8))
        #expect("\(scenario)" == "fd-exchange burst-8")
        (scenario.width, scenario.bus, scenario.vcpus, scenario.devices, scenario.ranges) = (.one, .port, 8, 2, 3)
        #expect("\(scenario)" == "fd-exchange burst-8, 1 bytes, port, 8 vCPUs, 2 devices, 3 ranges")
    }
}
