// SPDX-License-Identifier: Apache-2.0
//
// One step of a run, and the runs that seeds give.

import SeededRandom

/// What the driver does next. Any order of any operations is a run: one that makes no sense where it comes does nothing.
public struct FuzzOperation: Hashable, Sendable, CustomStringConvertible {
    /// What to do.
    public let kind: Kind
    /// To which device, counted modulo the devices that there are.
    public let device: Int
    /// Decides everything else.
    public let parameter: UInt64

    /// What there is to do.
    public enum Kind: String, CaseIterable, Sendable, Hashable {
        // The guest
        case access, signal, slot, nap
        // The emulation descriptor
        case serve, read, write, exchange, poll, nonblocking, coalesce, badEmulationCall
        // The control descriptor
        case range, badRange, timeout, onClose, park, resume, info, badControlCall
        // Who holds what
        case open, close, duplicate, pass, fork, endFork, foreignCall
        // The shadow image
        case shadowSize, shadowMap, map, unmap, image
        // The ring
        case ring, ringMap, ringGive, ringEnter, ringAwait, ringTake, ringScribble, ringJump, ringRace
        // Everything at rest
        case settle
    }

    /// How often each comes, of the sum of all.
    static let weights: [(Kind, Int)] = [
        (.access, 60), (.signal, 14), (.slot, 3), (.nap, 6),
        (.serve, 24), (.read, 20), (.write, 24), (.exchange, 14), (.poll, 6), (.nonblocking, 2), (.coalesce, 3),
        (.badEmulationCall, 4),
        (.range, 12), (.badRange, 4), (.timeout, 2), (.onClose, 3), (.park, 2), (.resume, 2), (.info, 3),
        (.badControlCall, 4),
        (.open, 12), (.close, 8), (.duplicate, 3), (.pass, 2), (.fork, 1), (.endFork, 2), (.foreignCall, 1),
        (.shadowSize, 4), (.shadowMap, 14), (.map, 4), (.unmap, 2), (.image, 8),
        (.ring, 6), (.ringMap, 2), (.ringGive, 30), (.ringEnter, 12), (.ringAwait, 6), (.ringTake, 8),
        (.ringScribble, 6), (.ringJump, 3), (.ringRace, 4),
        (.settle, 1),
    ]

    /// As a failure lists it.
    public var description: String { "\(kind.rawValue) device \(device), \(hex(parameter))" }
}

/// A run from the making of a machine to its end.
public struct FuzzCase: Sendable {
    /// What it comes from.
    public let seed: UInt64
    /// What it does, by position: a shortened run has the same operations at the same positions, but fewer.
    public var operations: [(position: Int, operation: FuzzOperation)]
    let vcpus: Int
    let devices: [Character]
    let depth: Int

    /// What a device may be put through.
    enum Character: Sendable {
        /// Nothing that loses an access: its waits have no limit, and it holds what comes while it is closed.
        case steady
        /// Everything.
        case careless
    }

    /// The run of a seed.
    ///
    /// - Parameter length: how many operations.
    public init(seed: UInt64, length: Int) {
        self.seed = seed
        var random = SeededGenerator(seed: scrambled(seed))
        vcpus = 2 + random.below(3)
        devices = [.steady] + (0..<random.below(3)).map { _ in .careless }
        depth = random.pick([1, 2, 3, 4, 8, 16, 64])
        let total = FuzzOperation.weights.reduce(0) { $0 + $1.1 }
        operations = (0..<length).map { position in
            var left = random.below(total)
            let chosen = FuzzOperation.weights.first { weight in
                left -= weight.1
                return left < 0
            }
            let kind = chosen?.0 ?? .nap
            return (position, FuzzOperation(kind: kind, device: random.below(3), parameter: random.next()))
        }
    }

    /// Only the operations at these positions.
    public func keeping(_ positions: some Collection<Int>) -> FuzzCase {
        var shorter = self
        let kept = Set(positions)
        shorter.operations = operations.filter { kept.contains($0.position) }
        return shorter
    }
}
