// SPDX-License-Identifier: Apache-2.0
//
// The accesses of a guest program, computed on the host: what a device must see, one by one.

/// The accesses that a program makes, in order.
///
/// Each is what one instruction, or one element of a string instruction, does; ``GuestAccess/fragments`` are what
/// reaches the device.
public struct GuestReplay: Sequence, Sendable {
    let program: GuestProgram
    let arguments: GuestProgram.Arguments

    /// Begins at the first access.
    public func makeIterator() -> Iterator {
        Iterator(program: program, arguments: arguments)
    }

    /// Gives the accesses one by one.
    public struct Iterator: IteratorProtocol {
        private let behaviour: GuestProgram.Behaviour
        private let arguments: GuestProgram.Arguments
        private let total: Int
        private var position = 0
        private var random: UInt64

        init(program: GuestProgram, arguments: GuestProgram.Arguments) {
            behaviour = program.behaviour
            self.arguments = arguments
            total = Swift.max(0, arguments.count) * program.behaviour.accessesPerRound
            random = arguments.seed == 0 ? golden : arguments.seed
        }

        /// The next access, nil after the last one.
        public mutating func next() -> GuestAccess? {
            guard position < total else { return nil }
            defer { position += 1 }
            return access(position)
        }

        private mutating func access(_ position: Int) -> GuestAccess {
            let target = arguments.target
            let counter = UInt128(arguments.seed &+ UInt64(position))
            switch behaviour {
            case .stores(let width):
                return .store(counter, width.rawValue, at: target)
            case .loads(let width):
                return .load(width.rawValue, at: target)
            case .pairs(let width):
                let value = UInt128(arguments.seed &+ UInt64(position / 2))
                return pair(position, value, width.rawValue, at: target)
            case .mixed(let aligned):
                return mixed(aligned: aligned)
            case .straddling:
                return straddling(position)
            case .sixteen:
                let low = (arguments.seed &+ UInt64(position / 2)) &* golden
                return pair(position, UInt128(~low) << 64 | UInt128(low), 16, at: target)
            case .stringStores(let width):
                return .store(UInt128(arguments.seed), width.rawValue, at: element(position, width))
            case .stringCopyOut(let width):
                return .store(counter, width.rawValue, at: element(position, width))
            case .stringCopyIn(let width):
                return .load(width.rawValue, at: element(position, width))
            case .outs(let width), .stringOuts(let width):
                return .store(counter, width.rawValue, at: target, on: .port)
            case .ins(let width):
                return .load(width.rawValue, at: target, on: .port)
            case .mailbox, .script, .bursts, .timed:
                preconditionFailure("this program's accesses are not told in advance")
            }
        }

        private func element(_ position: Int, _ width: GuestProgram.Width) -> UInt64 {
            arguments.target &+ UInt64(position * width.rawValue)
        }

        private func pair(_ position: Int, _ value: UInt128, _ length: Int, at address: UInt64) -> GuestAccess {
            position % 2 == 0 ? .store(value, length, at: address) : .load(length, at: address)
        }

        private func straddling(_ position: Int) -> GuestAccess {
            let (width, before) = straddles[position / 2 % straddles.count]
            let value = (arguments.seed &+ UInt64(position / 2)) &* golden
            return pair(position, UInt128(value), width, at: arguments.target &- UInt64(before))
        }

        private mutating func mixed(aligned: Bool) -> GuestAccess {
            random ^= random << 13
            random ^= random >> 7
            random ^= random << 17
            let width = UInt64(1) << (random & 3)
            var offset = (random >> 32) % (arguments.window - width + 1)
            if aligned { offset &= ~(width - 1) }
            let address = arguments.target &+ offset
            guard random & 4 != 0 else { return .load(Int(width), at: address) }
            return .store(UInt128(random &* 0x2545_f491_4f6c_dd1d), Int(width), at: address)
        }
    }
}

/// 2^64 divided by the golden ratio: spreads a counter over all bits of a value.
private let golden: UInt64 = 0x9e37_79b9_7f4a_7c15

/// Width, and bytes before the target, of each pair of a round of the straddling program.
private let straddles: [(width: Int, before: Int)] =
    [2, 4, 8].flatMap { width in (1..<width).map { (width, $0) } }

extension GuestProgram.Behaviour {
    fileprivate var accessesPerRound: Int {
        switch self {
        case .pairs: 2
        case .sixteen: 4
        case .straddling: 2 * straddles.count
        case .mailbox, .script, .bursts, .timed: 0
        default: 1
        }
    }
}

extension GuestProgram {
    /// The accesses that the program makes with these arguments, in order; none for the mailbox and the script.
    ///
    /// - Parameter arguments: for the mixed programs with a window of at least 8 bytes.
    public func accesses(_ arguments: Arguments) -> GuestReplay {
        precondition(arguments.window >= 8, "the window is too small for an access of 8 bytes")
        return GuestReplay(program: self, arguments: arguments)
    }
}
