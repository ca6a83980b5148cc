// SPDX-License-Identifier: Apache-2.0
//
// Columns and numbers as they are printed.

import Testing
import TextTable

@Suite("Text tables")
struct TextTableTests {
    @Test("Words begin at the left, numbers end at the right, no line ends with a space")
    func columns() {
        var table = TextTable()
        table.append(["path", "cost", ""])
        table.append(["a", "12345", "x"])
        table.append(["längst", "1"])
        #expect(table.lines == ["path     cost", "a       12345  x", "längst      1"])
    }

    @Test("A table without rows, or with rows without cells, has no text")
    func empty() {
        #expect(TextTable().lines == [])
        var table = TextTable(leading: 3)
        table.append([])
        #expect(table.lines == [""])
    }

    @Test(
        "Numbers are rounded, with so many decimals",
        arguments: [
            (0, 2, "0.00"), (0.005, 2, "0.01"), (1.5, 0, "2"), (-1.25, 1, "-1.3"), (-0.001, 2, "0.00"),
            (12.3, 3, "12.300"),
            (10887, 0, "10887"), (1e20, 2, "1e+20"), (.infinity, 2, "inf"), (-.infinity, 0, "-inf"), (.nan, 1, "nan"),
        ] as [(Double, Int, String)])
    func decimals(number: Double, places: Int, text: String) {
        #expect(decimal(number, places: places) == text)
    }
}
