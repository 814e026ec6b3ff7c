-- Inserts "rows" made-up cases, the same in every run, for "doctors" doctors with consecutive numbers from "first".
-- Consecutive rows belong to different doctors, so that one doctor's rows are spread over the table, as in production.
-- One case in ten has no summary. Times are whole seconds, or their sixth decimal is not 0: all servers write these alike.
INSERT INTO medmitra.cases (
    user_id, patient_name, patient_age, patient_gender, case_summary, status, created_at, updated_at
)
SELECT
    ('00000000-0000-4000-8000-' || lpad(to_hex(doctor), 12, '0'))::uuid,
    ('{Aisha,Björn,Carlos,Chloé,David,Emeka,Grace,Иван,Kavya,Liam,美咲}'::text[])[1 + n %% 11]
        || ' '
        || ('{Andersson,Castillo,Doe,García,Gupta,Ivanova,Kim,Müller,O''Connor,Patel,Rossi,Şahin,Smith}'::text[])
            [1 + n %% 13],
    n * 7 %% 100,
    ('{female,male,female,male,other}'::text[])[1 + n %% 5],
    CASE
        WHEN n %% 10 > 0
            THEN ('{
                "Chest pain and shortness of breath on exertion",
                "Follow-up appointment for diabetes management",
                "Recurrent migraine with visual aura, three episodes this month",
                "Persistent dry cough for six weeks, non-smoker",
                "Lower back pain radiating to the left leg since lifting a box",
                "Hypertension, home readings around 150/95 mmHg",
                "Itching rash on both forearms after a change of \"gentle\" detergent"
            }'::text[])[1 + n %% 7]
            || ('{
                ". ECG and blood work ordered.",
                ". Continue current medication, review in four weeks.",
                ". Referred to a specialist; patient agrees."
            }'::text[])[1 + n %% 3]
    END,
    ('{pending,analyzing,processing,completed,completed,completed,failed}'::text[])[1 + n %% 7],
    moment,
    moment + n %% 3600 * interval '1 second'
FROM (
    SELECT
        doctor,
        n,
        timestamptz '2021-03-01 08:00:00+00'
            + n %% 1500000 * interval '97 seconds'
            + n %% 2 * (n %% 99991 * 10 + 1 + n %% 9) * interval '1 microsecond' AS moment
    FROM (
        -- n counts each doctor's cases. Its first value differs from doctor to doctor.
        SELECT
            %(first)s + i %% %(doctors)s AS doctor,
            i / %(doctors)s + i %% %(doctors)s AS n
        FROM generate_series(0, %(rows)s::bigint - 1) AS i
    ) AS numbered
) AS dated
