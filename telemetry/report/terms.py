"""The overseers' report in words: one table for both languages.

Japanese terms are those of Act 42 of 2025 and of the amendment that added its Article
61(2), where the Act has a word for the thing.
"""

from __future__ import annotations

from telemetry.report.words import LANGUAGES, Language

TERMS: dict[str, tuple[str, str]] = {
    # the page
    "title": ("Overseers' report", "サイバー通信情報監理委員会向け報告"),
    "lead": (
        "Added up from the ledger and from the lake's counters; no record was looked at.",
        "台帳とデータレイクの計数のみから集計し、記録そのものは参照していない。",
    ),
    "made_at": ("Made (UTC)", "作成日時（UTC）"),
    "ledger_period": ("Entries from, to (UTC)", "台帳の期間（UTC）"),
    "ledger_entries": ("Entries in the ledger", "台帳の記載件数"),
    "anchor": ("Anchor to keep elsewhere", "別に保管すべき照合値"),
    "none": ("none", "なし"),
    "not_recorded": ("not recorded", "記録なし"),
    "what": ("What", "項目"),
    "number": ("Number", "件数"),
    "agree": (
        "Ledger and lake agree on every number.",
        "台帳とデータレイクの数は全て一致している。",
    ),
    "disagree": (
        "Ledger and lake differ; the figures must not be used before this is explained.",
        "台帳とデータレイクの数に不一致がある。原因が明らかになるまで、この数を用いてはならない。",
    ),
    # the report to the Diet
    "diet": ("Report to the Diet, Article 61(2)", "国会報告事項（第六十一条第二項）"),
    "diet_note": (
        "Kept by the overseers in a file of their own; the lake knows nothing of it.",
        "監理委員会が別に記録する事項であり、データレイクからは分からない。",
    ),
    "period": ("Period", "対象期間"),
    "under": ("Under", "根拠条文"),
    "requests": ("Requests for approval", "承認の求め"),
    "approvals": ("Approvals", "承認"),
    "article_17": (
        "Article 17(1): out-out measure",
        "第十七条第一項（外外通信目的送信措置）",
    ),
    "article_19": ("Article 19(1)", "第十九条第一項"),
    "article_32": (
        "Article 32(1): specific out-in measure",
        "第三十二条第一項（特定外内通信目的送信措置）",
    ),
    "article_32_19": (
        "Article 19(1), applied by Article 32(2)",
        "第三十二条第二項において準用する第十九条第一項",
    ),
    "article_33": (
        "Article 33(1): specific in-out measure",
        "第三十三条第一項（特定内外通信目的送信措置）",
    ),
    "article_33_19": (
        "Article 19(1), applied by Article 33(2)",
        "第三十三条第二項において準用する第十九条第一項",
    ),
    "outline": ("Outline", "概要"),
    "inspections": (
        "Results of inspections, Article 63(1) and (2)",
        "検査の結果（第六十三条第一項及び第二項）",
    ),
    "notices": ("Notices, Article 66(1)", "通知（第六十六条第一項）"),
    "demands": ("Demands, Article 67(1)", "要求（第六十七条第一項）"),
    "recommendations": ("Recommendations, Article 68", "勧告（第六十八条）"),
    # approvals that were used
    "used": ("Approvals that acts were done under", "処理の根拠とした承認"),
    "id": ("Approval", "承認"),
    "basis": ("Legal basis", "法的根拠"),
    "runs": ("Runs", "処理の実行"),
    "entries": ("Entries", "記載件数"),
    "first_last": ("First, last entry (UTC)", "最初・最後の記載（UTC）"),
    "agreement": ("Party agreement, Articles 11-16", "当事者協定（第十一条―第十六条）"),
    "out_out_measure": (
        "Out-out measure, Articles 17-20",
        "外外通信目的送信措置（第十七条―第二十条）",
    ),
    "specific_out_in": (
        "Specific out-in measure, Article 32",
        "特定外内通信目的送信措置（第三十二条）",
    ),
    "specific_in_out": (
        "Specific in-out measure, Article 33",
        "特定内外通信目的送信措置（第三十三条）",
    ),
    # traffic
    "traffic": ("What was read, dropped and kept", "読取り・除外・通過の内訳"),
    "packets": ("packets", "パケット"),
    "records": ("records of logs", "ログの記録"),
    "read": ("Read", "読取り"),
    "dropped": ("Dropped", "除外"),
    "kept": ("Kept", "通過"),
    # records
    "stored": ("Where stored records are", "保存した記録の所在"),
    "stored_note": (
        "Parts of records, counted when they were written; parts of one record are joined later.",
        "書込み時の部分記録の数。同じ記録に属する部分は後に一つにまとめられる。",
    ),
    "written": ("Written", "書込み"),
    "merged": ("Joined to others as parts of one record", "一つの記録へ統合"),
    "purged": ("Purged: an address turned out domestic", "消去：国内のアドレスと判明"),
    "erased": ("Erased: their time had ended", "消去：期間の満了"),
    "selected": (
        "Selected, in the lake now",
        "選別後通信情報として現在保存",
    ),
    "quarantined": ("Awaiting selection, in the lake now", "自動選別の前として現在保存"),
    "oldest": ("Day of the oldest record", "最も古い記録の日付"),
    # time to erase
    "erasing": ("Time to erase", "消去に要した時間"),
    "seconds": ("Seconds", "秒"),
    "purge": (
        "Longest purge, from finding a domestic address to its erasure",
        "国内のアドレスの判明から消去までの最長時間",
    ),
    "erasure": ("Longest erasure of records whose time had ended", "期間満了による消去の最長時間"),
    "erasure_late": (
        "Longest time by which an erasure came after its date",
        "消去期限からの最長の遅れ",
    ),
    # acts
    "acts": ("What was done", "処理の件数"),
    "runs_stopped": (
        "Runs stopped because their approval ended",
        "承認の終了により停止した実行",
    ),
    "sources_stored": ("Sources stored", "保存した入力"),
    "sources_refused": ("Sources refused", "拒否した入力"),
    "sources_abandoned": ("Sources abandoned by a killed run", "中断により破棄した入力"),
    "endpoints_scored": ("Foreign endpoints, newest scoring", "最新の評価における国外の通信先"),
    "endpoints_listed": ("Of these, listed", "うち掲載対象"),
    "selections": ("Automatic selections", "自動選別の実行"),
    "records_selected": ("Records selected", "自動選別により選別した記録"),
    "unselected_looks": (
        "Looks at records that were not selected",
        "選別されていない記録の閲覧",
    ),
    "exports": ("Lists exported", "リストの出力"),
    "entries_exported": ("Entries in them", "出力したリストの掲載件数"),
    "reports": ("Reports for analysts", "分析用報告の作成"),
    "reidentification_requests": ("Re-identifications asked for", "再識別化の求め"),
    "reidentifications": ("Re-identifications done", "再識別化の実施"),
    "leak_searches": ("Searches for leaks", "漏えいの探索"),
    "leaks_found": ("Leaks found by them", "探索により見つかった漏えい"),
    "leakage_measures": ("Comparisons with a second opinion", "別の判定との比較"),
    "leakage_leaks": (
        "Kept, yet domestic by the second opinion",
        "別の判定では国内とされた通過件数",
    ),
    "purges": ("Purges after a better table", "判定表の更新による消去の実行"),
    "records_purged": ("Records purged", "国内と判明して消去した記録"),
    "erasures": ("Erasures", "期間満了による消去の実行"),
    "unselected_erased": ("Unselected records erased", "消去した選別されなかった記録"),
    "selected_erased": ("Selected records erased", "消去した選別後通信情報"),
    "rule_changes": ("Changes of the selection rules", "自動選別の基準の変更"),
    "threshold_changes": ("Changes of the threshold of lists", "掲載のしきい値の変更"),
    "table_changes": ("Changes of the table of what is domestic", "国内判定表の変更"),
    "key_rotations": ("Key rotations", "仮名化鍵の更新"),
    "keys_destroyed": ("Key secrets destroyed", "破棄した仮名化鍵"),
    "ledger_repairs": ("Torn lines of the ledger cut off", "台帳の欠けた行の修復"),
    "not_entered": ("Acts that the ledger does not hold yet", "台帳に未記載の処理"),
    # reconciliation
    "checks": ("Reconciliation", "突合"),
    "checks_note": (
        "Each number is added up twice: from the ledger's entries, and from the lake's counters.",
        "各数を、台帳の記載とデータレイクの計数とからそれぞれ独立に集計した。",
    ),
    "by_ledger": ("By the ledger", "台帳"),
    "by_lake": ("By the lake", "データレイク"),
    "verdict": ("Verdict", "判定"),
    "agrees": ("agrees", "一致"),
    "differences": ("Where ledger and lake differ", "台帳とデータレイクの不一致"),
    "differs": ("differs", "不一致"),
    "kept_and_dropped": (
        "Read = kept + dropped",
        "読取り＝通過＋除外",
    ),
    "segments_of_sources": (
        "Parts of records, by source",
        "部分記録（入力ごとの合計）",
    ),
    "segments_written": ("Parts of records, written", "部分記録（書込み）"),
    "segments_placed": (
        "Parts of records, by where they are",
        "部分記録（所在ごとの合計）",
    ),
    "records_erased": ("Records erased", "期間満了により消去した記録"),
    "scores": ("Scores", "評価結果"),
    # how to verify
    "verify": ("How to verify", "検証の方法"),
    "verify_note": (
        "The chain of the ledger was checked before it was added up. With an anchor kept "
        "elsewhere, this finds a replaced ledger too:",
        "集計の前に台帳の連鎖を検証した。別に保管した照合値を用いれば、台帳の差替えも発見できる。",
    ),
}
"""Key to English and Japanese."""


def term(key: str, language: Language) -> str:
    """Returns the words for a key; a key that has none is a mistake of the program's."""
    return TERMS[key][LANGUAGES.index(language)]
