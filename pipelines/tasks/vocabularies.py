"""The sources' diagnostic codes, with their names and groups, as data."""

from __future__ import annotations

from typing import NamedTuple


class Statement(NamedTuple):
    """One SCP-ECG statement of PTB-XL."""

    code: str
    title: str
    diagnostic: tuple[str, str] | None = None  # superclass and subclass, if it is a diagnosis
    form: bool = False
    rhythm: bool = False


# scp_statements.csv of PTB-XL 1.0.3 (Wagner et al., CC BY 4.0), in its order: the columns description,
# diagnostic_class, diagnostic_subclass, form and rhythm.
PTBXL_STATEMENTS = (
    Statement("NDT", "non-diagnostic T abnormalities", diagnostic=("STTC", "STTC"), form=True),
    Statement("NST_", "non-specific ST changes", diagnostic=("STTC", "NST_"), form=True),
    Statement("DIG", "digitalis-effect", diagnostic=("STTC", "STTC"), form=True),
    Statement("LNGQT", "long QT-interval", diagnostic=("STTC", "STTC"), form=True),
    Statement("NORM", "normal ECG", diagnostic=("NORM", "NORM")),
    Statement("IMI", "inferior myocardial infarction", diagnostic=("MI", "IMI")),
    Statement("ASMI", "anteroseptal myocardial infarction", diagnostic=("MI", "AMI")),
    Statement("LVH", "left ventricular hypertrophy", diagnostic=("HYP", "LVH")),
    Statement("LAFB", "left anterior fascicular block", diagnostic=("CD", "LAFB/LPFB")),
    Statement("ISC_", "non-specific ischemic", diagnostic=("STTC", "ISC_")),
    Statement("IRBBB", "incomplete right bundle branch block", diagnostic=("CD", "IRBBB")),
    Statement("1AVB", "first degree AV block", diagnostic=("CD", "_AVB")),
    Statement("IVCD", "non-specific intraventricular conduction disturbance (block)", diagnostic=("CD", "IVCD")),
    Statement("ISCAL", "ischemic in anterolateral leads", diagnostic=("STTC", "ISCA")),
    Statement("CRBBB", "complete right bundle branch block", diagnostic=("CD", "CRBBB")),
    Statement("CLBBB", "complete left bundle branch block", diagnostic=("CD", "CLBBB")),
    Statement("ILMI", "inferolateral myocardial infarction", diagnostic=("MI", "IMI")),
    Statement("LAO/LAE", "left atrial overload/enlargement", diagnostic=("HYP", "LAO/LAE")),
    Statement("AMI", "anterior myocardial infarction", diagnostic=("MI", "AMI")),
    Statement("ALMI", "anterolateral myocardial infarction", diagnostic=("MI", "AMI")),
    Statement("ISCIN", "ischemic in inferior leads", diagnostic=("STTC", "ISCI")),
    Statement("INJAS", "subendocardial injury in anteroseptal leads", diagnostic=("MI", "AMI")),
    Statement("LMI", "lateral myocardial infarction", diagnostic=("MI", "LMI")),
    Statement("ISCIL", "ischemic in inferolateral leads", diagnostic=("STTC", "ISCI")),
    Statement("LPFB", "left posterior fascicular block", diagnostic=("CD", "LAFB/LPFB")),
    Statement("ISCAS", "ischemic in anteroseptal leads", diagnostic=("STTC", "ISCA")),
    Statement("INJAL", "subendocardial injury in anterolateral leads", diagnostic=("MI", "AMI")),
    Statement("ISCLA", "ischemic in lateral leads", diagnostic=("STTC", "ISCA")),
    Statement("RVH", "right ventricular hypertrophy", diagnostic=("HYP", "RVH")),
    Statement("ANEUR", "ST-T changes compatible with ventricular aneurysm", diagnostic=("STTC", "STTC")),
    Statement("RAO/RAE", "right atrial overload/enlargement", diagnostic=("HYP", "RAO/RAE")),
    Statement("EL", "electrolytic disturbance or drug (former EDIS)", diagnostic=("STTC", "STTC")),
    Statement("WPW", "Wolf-Parkinson-White syndrome", diagnostic=("CD", "WPW")),
    Statement("ILBBB", "incomplete left bundle branch block", diagnostic=("CD", "ILBBB")),
    Statement("IPLMI", "inferoposterolateral myocardial infarction", diagnostic=("MI", "IMI")),
    Statement("ISCAN", "ischemic in anterior leads", diagnostic=("STTC", "ISCA")),
    Statement("IPMI", "inferoposterior myocardial infarction", diagnostic=("MI", "IMI")),
    Statement("SEHYP", "septal hypertrophy", diagnostic=("HYP", "SEHYP")),
    Statement("INJIN", "subendocardial injury in inferior leads", diagnostic=("MI", "IMI")),
    Statement("INJLA", "subendocardial injury in lateral leads", diagnostic=("MI", "AMI")),
    Statement("PMI", "posterior myocardial infarction", diagnostic=("MI", "PMI")),
    Statement("3AVB", "third degree AV block", diagnostic=("CD", "_AVB")),
    Statement("INJIL", "subendocardial injury in inferolateral leads", diagnostic=("MI", "IMI")),
    Statement("2AVB", "second degree AV block", diagnostic=("CD", "_AVB")),
    Statement("ABQRS", "abnormal QRS", form=True),
    Statement("PVC", "ventricular premature complex", form=True),
    Statement("STD_", "non-specific ST depression", form=True),
    Statement("VCLVH", "voltage criteria (QRS) for left ventricular hypertrophy", form=True),
    Statement("QWAVE", "Q waves present", form=True),
    Statement("LOWT", "low amplitude T-waves", form=True),
    Statement("NT_", "non-specific T-wave changes", form=True),
    Statement("PAC", "atrial premature complex", form=True),
    Statement("LPR", "prolonged PR interval", form=True),
    Statement("INVT", "inverted T-waves", form=True),
    Statement("LVOLT", "low QRS voltages in the frontal and horizontal leads", form=True),
    Statement("HVOLT", "high QRS voltage", form=True),
    Statement("TAB_", "T-wave abnormality", form=True),
    Statement("STE_", "non-specific ST elevation", form=True),
    Statement("PRC(S)", "premature complex(es)", form=True),
    Statement("SR", "sinus rhythm", rhythm=True),
    Statement("AFIB", "atrial fibrillation", rhythm=True),
    Statement("STACH", "sinus tachycardia", rhythm=True),
    Statement("SARRH", "sinus arrhythmia", rhythm=True),
    Statement("SBRAD", "sinus bradycardia", rhythm=True),
    Statement("PACE", "normal functioning artificial pacemaker", rhythm=True),
    Statement("SVARR", "supraventricular arrhythmia", rhythm=True),
    Statement("BIGU", "bigeminal pattern (unknown origin, SV or Ventricular)", rhythm=True),
    Statement("AFLT", "atrial flutter", rhythm=True),
    Statement("SVTAC", "supraventricular tachycardia", rhythm=True),
    Statement("PSVT", "paroxysmal supraventricular tachycardia", rhythm=True),
    Statement("TRIGU", "trigeminal pattern (unknown origin, SV or Ventricular)", rhythm=True),
)

PTBXL_SUPERCLASS_TITLES = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}

# The nine SNOMED CT codes of the CPSC2018 headers, named as the Challenge's Dx_map.csv does: name, title, codes.
CPSC2018 = (
    ("NSR", "sinus rhythm", ("426783006",)),
    ("AF", "atrial fibrillation", ("164889003",)),
    ("IAVB", "first-degree AV block", ("270492004",)),
    ("LBBB", "left bundle branch block", ("164909002",)),
    ("RBBB", "right bundle branch block", ("59118001",)),
    ("PAC", "premature atrial contraction", ("284470004",)),
    ("VEB", "ventricular ectopic beats", ("164884008",)),
    ("STD", "ST depression", ("429622005",)),
    ("STE", "ST elevation", ("164931005",)),
)

# The 27 SNOMED CT codes that the PhysioNet/CinC Challenge 2020 scored (dx_mapping_scored.csv) as 24 classes: the
# Challenge scored three pairs as one (Perez Alday et al. 2020, doi:10.1088/1361-6579/abc960). The codes' order in a
# pair is the table's.
CHALLENGE_2020 = (
    ("IAVB", "first-degree AV block", ("270492004",)),
    ("AF", "atrial fibrillation", ("164889003",)),
    ("AFL", "atrial flutter", ("164890007",)),
    ("Brady", "bradycardia", ("426627000",)),
    ("RBBB", "right bundle branch block, or a complete one", ("713427006", "59118001")),
    ("IRBBB", "incomplete right bundle branch block", ("713426002",)),
    ("LAnFB", "left anterior fascicular block", ("445118002",)),
    ("LAD", "left axis deviation", ("39732003",)),
    ("LBBB", "left bundle branch block", ("164909002",)),
    ("LQRSV", "low QRS voltages", ("251146004",)),
    ("NSIVCB", "non-specific intraventricular conduction disorder", ("698252002",)),
    ("PR", "pacing rhythm", ("10370003",)),
    ("PAC", "premature atrial, or supraventricular, contraction", ("284470004", "63593006")),
    ("PVC", "premature ventricular contraction, or beats", ("427172004", "17338001")),
    ("LPR", "prolonged PR interval", ("164947007",)),
    ("LQT", "prolonged QT interval", ("111975006",)),
    ("QAb", "abnormal Q wave", ("164917005",)),
    ("RAD", "right axis deviation", ("47665007",)),
    ("SA", "sinus arrhythmia", ("427393009",)),
    ("SB", "sinus bradycardia", ("426177001",)),
    ("NSR", "sinus rhythm", ("426783006",)),
    ("STach", "sinus tachycardia", ("427084000",)),
    ("TAb", "abnormal T wave", ("164934002",)),
    ("TInv", "inverted T wave", ("59931005",)),
)

# The eleven rhythms of Chapman-Shaoxing in the four groups that its authors recommend (Zheng et al. 2020,
# doi:10.1038/s41597-020-0386-x), by the codes of ecg-arrhythmia's ConditionNames_SNOMED-CT.csv.
CHAPMAN_RHYTHMS = (
    ("SB", "sinus bradycardia", ("426177001",)),
    ("AFIB", "atrial fibrillation or flutter", ("164889003", "164890007")),
    (
        "GSVT",
        "supraventricular or sinus tachycardia, AV node or AV re-entry, wandering pacemaker",
        ("427084000", "426761007", "713422000", "233896004", "233897008", "195101003"),
    ),
    ("SR", "sinus rhythm or irregularity", ("426783006", "427393009")),
)
