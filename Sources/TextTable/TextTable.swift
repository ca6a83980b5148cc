// SPDX-License-Identifier: Apache-2.0
//
// Text in columns: every table that the project prints.

/// Rows of cells as lines, each column as wide as its widest cell, numbers at the right.
public struct TextTable: Sendable {
    private var rows: [[String]] = []
    private let leading: Int

    /// An empty table.
    ///
    /// - Parameter leading: how many columns, from the first on, hold words and begin at the left.
    public init(leading: Int = 1) {
        self.leading = leading
    }

    /// Adds a row; a heading is one too. Cells that a shorter row lacks stay empty.
    public mutating func append(_ cells: [String]) {
        rows.append(cells)
    }

    /// The lines, without spaces at their ends.
    public var lines: [String] {
        let count = rows.map(\.count).max() ?? 0
        let widths = (0..<count).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { cells in
            let line = zip(cells, widths).enumerated().map { column, cell in
                let space = String(repeating: " ", count: cell.1 - cell.0.count)
                return column < leading ? cell.0 + space : space + cell.0
            }.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }
    }
}
