//! Words and codes. All text is ready for JSON: what JSON wants escaped is escaped here, and some characters are
//! written as `\u` escapes on purpose, because files in the wild do.

/// A coded meaning: system, code, display.
#[derive(Clone, Copy)]
pub(crate) struct Code(pub &'static str, pub &'static str, pub &'static str);

pub(crate) const LOINC: &str = "http://loinc.org";
pub(crate) const SNOMED: &str = "http://snomed.info/sct";
pub(crate) const RXNORM: &str = "http://www.nlm.nih.gov/research/umls/rxnorm";
pub(crate) const UCUM: &str = "http://unitsofmeasure.org";
const CVX: &str = "http://hl7.org/fhir/sid/cvx";
const V3: &str = "http://terminology.hl7.org/CodeSystem/v3-";

/// A code system below terminology.hl7.org is named by its last part.
pub(crate) fn v3(system: &str) -> [&str; 2] {
    [V3, system]
}

/// People of one language: how they are called and where they live.
pub(crate) struct Culture {
    pub language: (&'static str, &'static str),
    pub families: &'static [&'static str],
    pub women: &'static [&'static str],
    pub men: &'static [&'static str],
    pub streets: &'static [&'static str],
    /// City, state, postal code, country.
    pub cities: &'static [[&'static str; 4]],
    pub offset: &'static str,
}

pub(crate) const CULTURES: &[Culture] = &[
    Culture {
        language: ("en-US", "English"),
        families: &["Hickle", "O'Keefe", "Smith-Jones", "Okafor", "Langworth", "Wunsch", "Kowalski", "Nguyen"],
        women: &["Talisha", "Mary Ann", "Ruth", "Bev", "Chidi", "Eleanor"],
        men: &["Alfonzo", r#"Robert \"Bob\""#, "J.D.", "Walter", "Emeka", "Luke"],
        streets: &["Reichel Union Suite 8", "Main St \u{2116} 5", "Harbor View Apt. 12\\/B", "Pine Ave"],
        cities: &[
            ["Framingham", "Massachusetts", "01701", "US"],
            ["Worcester", "Massachusetts", "01602", "US"],
            ["San José", "California", "95113", "US"],
        ],
        offset: "-05:00",
    },
    Culture {
        language: ("es", "Spanish"),
        families: &["Núñez de Cáceres", "García Márquez", "Ibáñez", "Peña", "Ordóñez"],
        women: &["María José", "Concepción", "Inés", "Lucía"],
        men: &["José Ángel", "Andrés", "Íñigo", "Martín"],
        streets: &["Calle de Alcalá, 3º dcha.", "Paseo de la Castellana", "C/ Peñón"],
        cities: &[["A Coruña", "Galicia", "15001", "ES"], ["León", "Castilla y León", "24001", "ES"]],
        offset: "+01:00",
    },
    Culture {
        language: ("de", "German"),
        // As a careful exporter writes them: nothing but ASCII.
        families: &[r"M\u00fcller", r"Gro\u00DFmann", r"J\u00e4ger", r"von der Stra\u00dfe", "Schmidt"],
        women: &[r"J\u00fcrgena", r"K\u00e4the", "Ursula", r"Zo\u00eb"],
        men: &[r"J\u00f6rg", r"G\u00fcnther", "Karl-Heinz", r"Bj\u00f6rn"],
        streets: &[r"K\u00f6nigsallee", r"Gro\u00dfe Bleichen", "Hauptstr."],
        cities: &[["Köln", "Nordrhein-Westfalen", "50667", "DE"], [r"M\u00fcnchen", "Bayern", "80331", "DE"]],
        offset: "+02:00",
    },
    Culture {
        language: ("ru-RU", "Russian"),
        families: &["Иванова", "Щукин-Ёлкин", "Достоевский", "Съедобный", "Петров"],
        women: &["Анна", "Елена Сергеевна", "Любовь", "Наталья"],
        men: &["Фёдор", "Юрий", "Пётр Ильич", "Алексей"],
        streets: &["ул. Большая Ордынка", "Невский проспект", "пер. Сивцев Вражек"],
        cities: &[["Москва", "Москва", "119017", "RU"], ["Нижний Новгород", "Нижегородская область", "603000", "RU"]],
        offset: "+03:00",
    },
    Culture {
        language: ("zh-CN", "Chinese"),
        families: &["王", "李", "欧阳", "諸葛", "司马"],
        women: &["小红", "美玲", "静", "\u{20BB7}子"],
        men: &["伟", "建国", "志明", r"\u5f3a"],
        streets: &["南京东路", "长安街", "中山北路"],
        cities: &[["上海市", "上海", "200001", "CN"], ["北京市", "北京", "100006", "CN"]],
        offset: "+08:00",
    },
    Culture {
        language: ("ar", "Arabic"),
        families: &["الفارسي", "بن عبد الله", "حدّاد", "السيد"],
        women: &["فاطمة", "ليلى", "زَيْنَب"],
        men: &["محمد", "عبد الرحمن", "يوسف"],
        streets: &["شارع التحرير", "طريق الملك فهد"],
        cities: &[["القاهرة", "القاهرة", "11511", "EG"], ["الرياض", "الرياض", "11564", "SA"]],
        offset: "+03:00",
    },
    Culture {
        language: ("fr-CA", "French"),
        families: &["Lefèvre", "Côté", "L'Écuyer", "Bélanger", "Œuvray"],
        women: &["Zoé", "Françoise", "Anaïs"],
        men: &["Loïc", "René-Lévesque", "François"],
        streets: &["rue de l'Église", "chemin Sainte-Foy", r"boul. Ren\u00e9-L\u00e9vesque"],
        cities: &[["Montréal", "Québec", "H2X 1Y4", "CA"], ["Trois-Rivières", "Québec", "G9A 1A1", "CA"]],
        offset: "-04:00",
    },
];

/// Nicknames with characters beyond the basic plane, raw and as surrogate pairs.
pub(crate) const NICKNAMES: &[&str] =
    &["Sunny \u{1F33B}", r"Smiley \ud83d\ude00", "Dr. \u{1F9EC}", r"\uD83E\uDD8A Fox", "Tab\\tBack\\\\slash"];

pub(crate) const DEPARTMENTS: &[&str] =
    &["Cardiology", "Oncology", "Primary Care", "Emergency", "Pädiatrie", "Хирургия"];

pub(crate) const ENCOUNTERS: &[Code] = &[
    Code(SNOMED, "185345009", "Encounter for symptom"),
    Code(SNOMED, "162673000", "General examination of patient (procedure)"),
    Code(SNOMED, "410620009", "Well child visit (procedure)"),
    Code(SNOMED, "50849002", "Emergency room admission (procedure)"),
    Code(SNOMED, "390906007", "Follow-up encounter"),
];

pub(crate) const CONDITIONS: &[Code] = &[
    Code(SNOMED, "38341003", "Hypertension"),
    Code(SNOMED, "44054006", "Diabetes mellitus type 2"),
    Code(SNOMED, "195662009", "Acute viral pharyngitis (disorder)"),
    Code(SNOMED, "10509002", "Acute bronchitis (disorder)"),
    Code(SNOMED, "162864005", "Body mass index 30+ - obesity (finding)"),
    Code(SNOMED, "55822004", "Hyperlipidemia"),
    Code(SNOMED, "40055000", "Chronic sinusitis (disorder)"),
    Code(SNOMED, "232353008", "Perennial allergic rhinitis with seasonal variation"),
    Code("http://hl7.org/fhir/sid/icd-10-cm", "M54.50", "Low back pain, unspecified"),
    Code(SNOMED, "13445001", "Ménière's disease"),
];

pub(crate) const PROCEDURES: &[Code] = &[
    Code(SNOMED, "430193006", "Medication Reconciliation (procedure)"),
    Code(SNOMED, "80146002", "Appendectomy"),
    Code(SNOMED, "73761001", "Colonoscopy"),
    Code(SNOMED, "23426006", "Measurement of respiratory function (procedure)"),
    Code(SNOMED, "76601001", "Intramuscular injection"),
    Code(SNOMED, "171207006", "Depression screening (procedure)"),
];

pub(crate) const MEDICATIONS: &[Code] = &[
    Code(RXNORM, "314076", "lisinopril 10 MG Oral Tablet"),
    Code(RXNORM, "860975", "24 HR Metformin hydrochloride 500 MG Extended Release Oral Tablet"),
    Code(RXNORM, "313782", "Acetaminophen 325 MG Oral Tablet"),
    Code(RXNORM, "308182", "Amoxicillin 250 MG Oral Capsule"),
    Code(RXNORM, "259255", "Atorvastatin 80 MG Oral Tablet"),
    Code(RXNORM, "2123111", r#"NDA020503 200 ACTUAT Albuterol 0.09 MG\/ACTUAT Metered Dose Inhaler \"rescue\""#),
    Code(RXNORM, "310798", "Hydrochlorothiazide 25 MG Oral Tablet"),
];

pub(crate) const VACCINES: &[Code] = &[
    Code(CVX, "140", "Influenza, seasonal, injectable, preservative free"),
    Code(CVX, "08", "Hep B, adolescent or pediatric"),
    Code(CVX, "20", "DTaP"),
    Code(CVX, "03", "MMR"),
    Code(CVX, "208", "SARS-COV-2 (COVID-19) vaccine, mRNA, spike protein, LNP, preservative free, 30 mcg/0.3mL dose"),
    Code(CVX, "113", "Td (adult), 5 Lf tetanus toxoid, preservative free, adsorbed"),
];

pub(crate) const ALLERGENS: &[Code] = &[
    Code(SNOMED, "256349002", "Peanut - dietary"),
    Code(SNOMED, "91936005", "Allergy to penicillin"),
    Code(SNOMED, "264287008", "Animal dander"),
    Code(SNOMED, "260147004", "House dust mite"),
    Code(SNOMED, "735029006", "Shellfish (substance) – crème"),
];

pub(crate) const REACTIONS: &[Code] = &[
    Code(SNOMED, "247472004", "Weal"),
    Code(SNOMED, "271807003", "Eruption of skin"),
    Code(SNOMED, "39579001", "Anaphylaxis"),
];

pub(crate) const BODY_SITES: &[Code] = &[
    Code(SNOMED, "368209003", "Right upper arm structure"),
    Code(SNOMED, "368208006", "Left upper arm structure"),
    Code(SNOMED, "39607008", "Lung structure"),
];

pub(crate) const REPORTS: &[Code] = &[
    Code(LOINC, "51990-0", "Basic Metabolic Panel"),
    Code(LOINC, "57698-3", "Lipid Panel"),
    Code(LOINC, "69742-5", "CBC W Auto Differential panel - Blood"),
    Code(LOINC, "24323-8", "Comprehensive metabolic 2000 panel - Serum or Plasma"),
];

/// Notes as people type them: quotes, line breaks, tabs, other scripts.
pub(crate) const NOTES: &[&str] = &[
    r#"Patient says: \"better than last week\".\nContinue; see again in 2 weeks."#,
    r"No change.\r\n\tBP taken twice, left arm, sitting.",
    "Пациент жалоб не предъявляет. Температура в норме.",
    r"Fasting since 22:00 \u2013 confirmed by nurse \u201cA.\u201d",
    "検体は溶血していました。再検査を推奨します。",
    r"c:\\lab\\out\\0042.pdf attached \ud83d\udcce",
    "Résultat communiqué au médecin traitant; à recontrôler à jeun.",
    "Within normal limits, no further action.",
];
