// SPDX-License-Identifier: Apache-2.0
//
// mmiofd cost: a first comparison of the descriptor with exits and a socket.

import ArgumentParser
import ForwardingProcesses
import Glibc
import JSONText
import LinuxSystem
import Logging
import SystemPackage
import TextTable

struct CostCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cost",
        abstract: "Compare what an access costs through the descriptor, and through an exit and a socket.",
        discussion: """
            Runs the same guest loop on each path by turns, the device in a process of its own, and prints the median \
            of the rounds. The times depend on the machine and on what else it does: only the ratios of one run mean \
            anything. Each is to a bare exit of the same kind: an access that the VMM answers itself.
            """)

    @Option(help: "How many accesses each path makes in a round.")
    var count = 5000

    @Option(help: "How many rounds are measured.")
    var rounds = 5

    // The process that this command starts, of itself.
    @Option(help: .hidden, transform: Self.peer)
    var peer: CostPeer?

    @OptionGroup var output: OutputOptions
    @OptionGroup var log: LogOptions

    func validate() throws {
        guard (1...1_000_000).contains(count) else { throw ValidationError("--count must be 1 to 1000000") }
        guard (1...1000).contains(rounds) else { throw ValidationError("--rounds must be 1 to 1000") }
    }

    func run() throws {
        if let peer { return try peer.run() }
        let logger = log.logger("cost")
        let costs = try CostComparison(count: count, rounds: rounds).run { peer, socket in
            let child = try ChildProcess(
                "/proc/self/exe", ["cost", "--peer", peer.rawValue],
                descriptors: .init(input: socket, output: STDOUT_FILENO, error: STDERR_FILENO))
            // It ends with the sockets and the virtual machine, which end with this process at the latest.
            logger.debug("started a peer", metadata: ["kind": "\(peer.rawValue)", "process": "\(child.process)"])
        }
        StandardOutput.print(output.json ? json(costs).description : Self.text(costs))
    }

    private static func peer(_ name: String) throws -> CostPeer {
        guard let peer = CostPeer(rawValue: name) else { throw ValidationError("there is no peer '\(name)'") }
        return peer
    }

    private static func text(_ costs: [CostComparison.Cost]) -> String {
        var table = TextTable()
        table.append(["path", "median us", "fastest", "slowest", "to a bare exit"])
        for cost in costs {
            table.append([
                cost.path.rawValue, decimal(cost.median / 1000), decimal((cost.nanoseconds.first ?? 0) / 1000),
                decimal((cost.nanoseconds.last ?? 0) / 1000), decimal(cost.ratio),
            ])
        }
        return table.lines.joined(separator: "\n")
    }

    private func json(_ costs: [CostComparison.Cost]) -> JSONValue {
        .object([
            "count": .integer(count), "rounds": .integer(rounds),
            "costs": .array(
                costs.map {
                    .object([
                        "path": .string($0.path.rawValue), "median_ns": .integer(Int($0.median)),
                        "fastest_ns": .integer(Int($0.nanoseconds.first ?? 0)),
                        "slowest_ns": .integer(Int($0.nanoseconds.last ?? 0)),
                        "ratio_to_exit_percent": .integer(Int(100 * $0.ratio)),
                    ])
                }),
        ])
    }
}
